#include "unet/lora_names.h"

#include <doctest/doctest.h>

using namespace laptopdiff;
using unet::LoraModules;
using unet::LoraName;
using unet::LoraPart;
using unet::LoraTarget;

namespace {

const std::string kQuery = "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q";
const std::string kOut = "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_out.0";
const std::string kText = "encoder.layers.0.self_attn.q_proj";

std::optional<std::string> resolve(const LoraModules& modules, const std::string& name) {
  const auto parsed = unet::parse_lora_name(name);
  return parsed ? modules.find(*parsed) : std::nullopt;
}

}  // namespace

TEST_CASE("the three styles name the same layer") {
  const LoraModules modules(LoraTarget::unet, {kQuery, kOut, "conv_in", "up_blocks.0.upsamplers.0.conv"});
  for (const std::string& name :
       {"unet." + kQuery + ".lora_A.weight", "base_model.model." + kQuery + ".lora_B.weight",
        kQuery + ".lora.up.weight", "unet." + kQuery + ".alpha",
        std::string("unet.down_blocks.1.attentions.0.transformer_blocks.0.attn1.processor.to_q_lora.down.weight"),
        std::string("lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn1_to_q.lora_down.weight"),
        std::string("lora_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_q.alpha")}) {
    CAPTURE(name);
    CHECK(resolve(modules, name) == kQuery);
  }
  CHECK(resolve(modules, "down_blocks.1.attentions.0.transformer_blocks.0.attn1.processor.to_out_lora.up.weight") ==
        kOut);
  CHECK(resolve(modules, "lora_unet_input_blocks_0_0.lora_up.weight") == "conv_in");
  for (const char* slot : {"1", "2"}) {  // SD's and SD XL's
    CHECK(resolve(modules, std::string("lora_unet_output_blocks_2_") + slot + "_conv.lora_up.weight") ==
          "up_blocks.0.upsamplers.0.conv");
  }
  CHECK_FALSE(resolve(modules, "unet.down_blocks.9.to_q.lora_A.weight"));
}

TEST_CASE("text encoders are told apart, with and without text_model") {
  for (const std::string& known : {kText, "text_model." + kText}) {
    const LoraModules modules(LoraTarget::text_encoder, {known});
    CHECK(resolve(modules, "text_encoder.text_model." + kText + ".lora_A.weight") == known);
    CHECK(resolve(modules, "text_encoder.text_model." + kText + ".lora_linear_layer.up.weight") == known);
    CHECK(resolve(modules, "lora_te_text_model_encoder_layers_0_self_attn_q_proj.lora_down.weight") == known);
    CHECK(resolve(modules, "lora_te1_text_model_encoder_layers_0_self_attn_q_proj.alpha") == known);
  }
  const auto second = unet::parse_lora_name("lora_te2_text_model_encoder_layers_0_mlp_fc1.lora_up.weight");
  CHECK(second == LoraName{LoraTarget::text_encoder_2, "text_model_encoder_layers_0_mlp_fc1", true, LoraPart::up});
  CHECK(unet::parse_lora_name("text_encoder_2.text_projection.lora_A.weight")->target == LoraTarget::text_encoder_2);
}

TEST_CASE("what is not plain LoRA is not read") {
  for (const char* name :
       {"unet.conv_in.lora_magnitude_vector", "lora_unet_conv_in.dora_scale", "conv_in.weight",
        "lora_unet_conv_in.hada_w1_a", "lora_unet_conv_in.lokr_w1", "lora_unet_conv_in.lora_mid.weight"}) {
    CAPTURE(name);
    CHECK_FALSE(unet::parse_lora_name(name));
  }
}
