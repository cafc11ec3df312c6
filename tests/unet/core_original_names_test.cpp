#include <map>
#include <set>

#include "tests/support/architectures.h"
#include "tests/support/thrown.h"
#include "unet/original_names.h"
#include "unet/program.h"
#include "unet/single_file.h"

#include <doctest/doctest.h>

using namespace laptopdiff;
using runtime::Json;
using test::sd15;
using test::sdxl;
using unet::Family;

namespace {

Json with(Json config, const Json& changes) {
  config.update(changes);
  return config;
}

Json sd2() {
  return with(
      sd15(),
      {{"attention_head_dim", {5, 10, 20, 20}}, {"cross_attention_dim", 1024}, {"use_linear_projection", true}});
}

Json sd_tiny() {
  const Json down(3, "CrossAttnDownBlock2D"), up(3, "CrossAttnUpBlock2D");
  return with(sd15(), {{"layers_per_block", 1},
                       {"block_out_channels", {320, 640, 1280}},
                       {"down_block_types", down},
                       {"up_block_types", up},
                       {"mid_block_type", nullptr}});
}

// What they have in common with the published models is stated in the names; the counts are the published ones.
struct Net {
  const char* name;
  Json config;
  Family family;
  std::int64_t params;
};
std::vector<Net> nets() {
  return {
      {"SD 1.5", sd15(), Family::sd, 859'520'964},
      {"SD 2.1", sd2(), Family::sd, 865'910'724},
      {"SD XL", sdxl(), Family::sd_xl, 2'567'463'684},
      {"sd_small", with(sd15(), {{"layers_per_block", 1}}), Family::sd, 579'384'964},
      {"BK-SDM-Small", with(sd15(), {{"layers_per_block", 1}, {"mid_block_type", nullptr}}), Family::sd, 482'346'884},
      {"sd_tiny", sd_tiny(), Family::sd, 323'384'964},
      {"KOALA-1B", with(sdxl(), {{"layers_per_block", 1}, {"transformer_layers_per_block", {1, 2, 6}}}), Family::sd_xl,
       1'161'184'324},
      {"KOALA-700M",
       with(sdxl(),
            {{"layers_per_block", 1}, {"transformer_layers_per_block", {1, 2, 5}}, {"mid_block_type", nullptr}}),
       Family::sd_xl, 782'822'724},
      {"SSD-1B",
       with(sdxl(), {{"transformer_layers_per_block", {1, 2, 4}},
                     {"reverse_transformer_layers_per_block", Json::parse("[[4, 4, 10], [2, 1, 1], 1]")},
                     {"mid_block_type", "UNetMidBlock2D"}}),
       Family::sd_xl, 1'331'334'404},
  };
}

unet::TensorViews tensors_of(const unet::Program& program) {
  unet::TensorViews tensors;
  for (const unet::Step& step : program.steps) {
    for (const unet::Parameter& parameter : unet::step_parameters(program.config, program.stages, step)) {
      tensors[parameter.name].shape = parameter.shape;
    }
  }
  return tensors;
}

unet::Program program_of(const Json& config) { return unet::build_base(unet::parse_config(config, "config.json")); }

}  // namespace

TEST_CASE("every U-Net tensor has an original name of its own, and comes back by it") {
  for (const Net& net : nets()) {
    CAPTURE(net.name);
    const unet::Program program = program_of(net.config);
    REQUIRE(program.params() == net.params);
    std::set<std::string> originals;
    for (const auto& [name, view] : tensors_of(program)) {
      CAPTURE(name);
      const auto original = unet::original_unet_name(name, net.family);
      REQUIRE(original);
      CHECK(originals.insert(*original).second);
      CHECK(unet::diffusers_unet_name(*original) == name);
    }
  }
}

TEST_CASE("original U-Net names are those of the published files") {
  const std::pair<const char*, const char*> rows[] = {
      {"conv_in.weight", "input_blocks.0.0.weight"},
      {"time_embedding.linear_2.bias", "time_embed.2.bias"},
      {"add_embedding.linear_1.weight", "label_emb.0.0.weight"},
      {"down_blocks.0.resnets.1.conv1.weight", "input_blocks.2.0.in_layers.2.weight"},
      {"down_blocks.0.downsamplers.0.conv.bias", "input_blocks.3.0.op.bias"},
      {"down_blocks.1.resnets.0.conv_shortcut.weight", "input_blocks.4.0.skip_connection.weight"},
      {"down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q.weight",
       "input_blocks.4.1.transformer_blocks.0.attn1.to_q.weight"},
      {"down_blocks.3.resnets.1.time_emb_proj.weight", "input_blocks.11.0.emb_layers.1.weight"},
      {"mid_block.attentions.0.proj_in.weight", "middle_block.1.proj_in.weight"},
      {"mid_block.resnets.1.norm2.weight", "middle_block.2.out_layers.0.weight"},
      {"up_blocks.0.upsamplers.0.conv.weight", "output_blocks.2.1.conv.weight"},
      {"up_blocks.1.upsamplers.0.conv.weight", "output_blocks.5.2.conv.weight"},
      {"up_blocks.3.attentions.2.norm.weight", "output_blocks.11.1.norm.weight"},
      {"conv_norm_out.weight", "out.0.weight"},
      {"conv_out.bias", "out.2.bias"},
  };
  for (const auto& [diffusers, original] : rows) {
    CHECK(unet::original_unet_name(diffusers, Family::sd) == original);
    CHECK(unet::diffusers_unet_name(original) == diffusers);
  }
  CHECK(unet::original_unet_name("up_blocks.0.upsamplers.0.conv.weight", Family::sd_xl) ==
        "output_blocks.2.2.conv.weight");
}

TEST_CASE("attention in the first up stage, which SD 1 does not have, is read") {
  CHECK(unet::diffusers_unet_name("output_blocks.1.1.norm.bias") == "up_blocks.0.attentions.1.norm.bias");
}

TEST_CASE("names that no U-Net of this layout has are not read") {
  for (const char* name : {"input_blocks.0.1.weight", "input_blocks.3.1.norm.weight", "input_blocks.1.2.norm.weight",
                           "input_blocks.01.0.in_layers.0.weight", "input_blocks.99999999999.0.op.weight",
                           "input_blocks.-1.0.op.weight", "output_blocks.0.1", "output_blocks.2.3.conv.weight",
                           "middle_block.3.norm.weight", "input_blocks", "input_blocks.1.0.in_layers.7.weight", ""}) {
    CAPTURE(name);
    const auto read = unet::diffusers_unet_name(name);
    CHECK_MESSAGE(!read, read.value_or(""));
  }
  for (const char* name :
       {"down_blocks.0.resnets.2.norm1.weight", "up_blocks.0.motion.0.weight", "class_embedding.w"}) {
    CAPTURE(name);
    CHECK_FALSE(unet::original_unet_name(name, Family::sd));
  }
}

TEST_CASE("the tensors imply a config with exactly these tensors") {
  for (const Net& net : nets()) {
    CAPTURE(net.name);
    const unet::Program program = program_of(net.config);
    const unet::TensorViews tensors = tensors_of(program);
    const Json config = unet::config_from_tensors(tensors, "file");
    const unet::TensorViews again = tensors_of(program_of(config));
    REQUIRE(again.size() == tensors.size());
    for (const auto& [name, view] : tensors) CHECK(again.at(name).shape == view.shape);
    // Heads are in no shape; they decide the result all the same.
    const unet::Program derived = program_of(config);
    for (std::size_t i = 0; i < program.stages.size(); ++i) {
      CHECK(derived.stages[i].heads == program.stages[i].heads);
    }
    CHECK(derived.config.sample_height == program.config.sample_height);
  }
}

TEST_CASE("SD 1.5's tensors imply its published config") {
  const Json published = Json::parse(R"({"_class_name":"UNet2DConditionModel","act_fn":"silu","attention_head_dim":8,
    "block_out_channels":[320,640,1280,1280],"center_input_sample":false,"cross_attention_dim":768,
    "down_block_types":["CrossAttnDownBlock2D","CrossAttnDownBlock2D","CrossAttnDownBlock2D","DownBlock2D"],
    "downsample_padding":1,"flip_sin_to_cos":true,"freq_shift":0,"in_channels":4,"layers_per_block":2,
    "mid_block_scale_factor":1,"norm_eps":1e-05,"norm_num_groups":32,"out_channels":4,"sample_size":64,
    "up_block_types":["UpBlock2D","CrossAttnUpBlock2D","CrossAttnUpBlock2D","CrossAttnUpBlock2D"]})");
  CHECK(unet::config_from_tensors(tensors_of(program_of(sd15())), "file") == published);
}

TEST_CASE("tensors that no config says are refused with the module") {
  unet::TensorViews tensors = tensors_of(program_of(sd15()));
  const auto message = [&] { return test::thrown_by([&] { unet::config_from_tensors(tensors, "file"); }).message; };
  const auto drop = [&](const std::string& prefix) {
    std::erase_if(tensors, [&](const auto& entry) { return entry.first.starts_with(prefix); });
  };
  const auto says = [&](const std::string& part) { return message().find(part) != std::string::npos; };
  SUBCASE("a stage with a hole") {
    drop("down_blocks.1.resnets.0.");
    CHECK(says("down_blocks.1.resnets.0 is missing"));
  }
  SUBCASE("sides that do not mirror each other") {
    drop("down_blocks.1.resnets.1.");
    drop("down_blocks.1.attentions.1.");
    CHECK(says("down_blocks.1 has 1 ResNets, so up_blocks.2 needs 2, it has 3"));
  }
  SUBCASE("attention beside some of the ResNets") {
    drop("down_blocks.1.attentions.1.");
    CHECK(says("down_blocks.1 has 2 ResNets and 1 attentions"));
  }
  SUBCASE("no output") {
    drop("conv_out.");
    CHECK(says("conv_out.weight is missing"));
  }
  SUBCASE("no stages") {
    drop("up_blocks.");
    CHECK(says("4 down stages and 0 up stages"));
  }
}

TEST_CASE("VAE names map both ways, the decoder's stages in reverse") {
  const std::pair<const char*, const char*> rows[] = {
      {"encoder.conv_in.weight", "encoder.conv_in.weight"},
      {"encoder.down_blocks.1.resnets.0.conv_shortcut.bias", "encoder.down.1.block.0.nin_shortcut.bias"},
      {"encoder.down_blocks.2.downsamplers.0.conv.weight", "encoder.down.2.downsample.conv.weight"},
      {"encoder.mid_block.resnets.0.norm1.weight", "encoder.mid.block_1.norm1.weight"},
      {"encoder.mid_block.attentions.0.group_norm.bias", "encoder.mid.attn_1.norm.bias"},
      {"decoder.mid_block.attentions.0.to_q.weight", "decoder.mid.attn_1.q.weight"},
      {"decoder.mid_block.attentions.0.to_out.0.weight", "decoder.mid.attn_1.proj_out.weight"},
      {"decoder.mid_block.resnets.1.conv2.weight", "decoder.mid.block_2.conv2.weight"},
      {"decoder.up_blocks.0.resnets.2.conv1.weight", "decoder.up.3.block.2.conv1.weight"},
      {"decoder.up_blocks.2.upsamplers.0.conv.bias", "decoder.up.1.upsample.conv.bias"},
      {"decoder.conv_norm_out.weight", "decoder.norm_out.weight"},
      {"decoder.conv_out.weight", "decoder.conv_out.weight"},
      {"quant_conv.weight", "quant_conv.weight"},
      {"post_quant_conv.bias", "post_quant_conv.bias"},
  };
  for (const auto& [diffusers, original] : rows) {
    CHECK(unet::original_vae_name(diffusers, 4) == original);
    CHECK(unet::diffusers_vae_name(original, 4) == diffusers);
  }
  CHECK_FALSE(unet::diffusers_vae_name("decoder.up.4.upsample.conv.bias", 4));
  CHECK_FALSE(unet::diffusers_vae_name("encoder.down.0.attn.0.q.weight", 4));
}

TEST_CASE("OpenCLIP's names map both ways, fused projections to thirds") {
  const std::string layer = "text_model.encoder.layers.3.";
  const std::string block = "transformer.resblocks.3.";
  const std::map<std::string, std::string> same = {
      {"text_model.embeddings.token_embedding.weight", "token_embedding.weight"},
      {"text_model.embeddings.position_embedding.weight", "positional_embedding"},
      {"text_model.final_layer_norm.bias", "ln_final.bias"},
      {layer + "layer_norm1.weight", block + "ln_1.weight"},
      {layer + "mlp.fc1.bias", block + "mlp.c_fc.bias"},
      {layer + "mlp.fc2.weight", block + "mlp.c_proj.weight"},
      {layer + "self_attn.out_proj.weight", block + "attn.out_proj.weight"},
  };
  for (const auto& [ours, original] : same) {
    CHECK(unet::open_clip_place(ours) == unet::OpenClipPlace{original, {}, false});
    CHECK(unet::transformers_text_names(original) == std::vector<std::string>{ours});
  }
  CHECK(unet::open_clip_place("text_projection.weight") == unet::OpenClipPlace{"text_projection", {}, true});
  const auto parts = unet::transformers_text_names(block + "attn.in_proj_bias");
  REQUIRE(parts.size() == 3);
  CHECK(parts[1] == layer + "self_attn.k_proj.bias");
  for (int i = 0; i < 3; ++i) {
    CHECK(unet::open_clip_place(parts[static_cast<std::size_t>(i)]) ==
          unet::OpenClipPlace{block + "attn.in_proj_bias", i, false});
  }
  CHECK(unet::transformers_text_names("transformer.resblocks.3.attn.rotary").empty());
  CHECK_FALSE(unet::open_clip_place(layer + "self_attn.rotary.weight"));
}
