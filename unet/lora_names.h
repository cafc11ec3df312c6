// The names of LoRA tensors in the three styles in use, told apart and brought to diffusers module paths.
//
//   peft, diffusers    unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q.lora_A.weight
//   older diffusers    unet.down_blocks.0....attn1.processor.to_q_lora.down.weight,
//                      text_encoder....q_proj.lora_linear_layer.up.weight
//   kohya              lora_unet_down_blocks_0_attentions_0_..._to_q.lora_down.weight, lora_te1_text_model_...alpha,
//                      lora_unet_input_blocks_4_1_... (original numbering)
// Knows no torch.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace laptopdiff::unet {

enum class LoraTarget { unet, text_encoder, text_encoder_2 };
enum class LoraPart { down, up, alpha };  // A [r, in], B [out, r], and the numerator of the scale
const char* lora_target_name(LoraTarget target);

struct LoraName {
  LoraTarget target = LoraTarget::unet;
  std::string module;        // "down_blocks.0.attentions.0.proj_in", or with underscores for every dot
  bool underscored = false;  // kohya: which underscores were dots only the model can tell
  LoraPart part = LoraPart::down;
  bool operator==(const LoraName&) const = default;
};

// nullopt for a name of no known style, and for parts that are not plain LoRA (DoRA, LoHa, LoKr, Tucker's middle).
std::optional<LoraName> parse_lora_name(std::string_view name);

// Finds modules of one model by the names LoRA files use for them.
class LoraModules {
 public:
  // `modules` are diffusers paths; those of text encoders with or without `text_model.`.
  LoraModules(LoraTarget target, const std::vector<std::string>& modules);
  // The path as given to the constructor.
  std::optional<std::string> find(const LoraName& name) const;

 private:
  std::map<std::string, std::string, std::less<>> dotted_, underscored_;
};

}  // namespace laptopdiff::unet
