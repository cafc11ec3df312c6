// The names of single-file checkpoints ("original", CompVis and Stability) and diffusers' names, both ways.
//
// Names are without the prefixes that tell a file's parts apart (kUNetPrefix, ...). A name that has no counterpart
// gives nullopt. The numbering of U-Net layers has the fixed stride of two layers and a sampler, so students with one
// layer a stage leave gaps; attention is accepted in every stage. Knows no torch.
// Source: the names that diffusers (loaders/single_file_utils.py) and the CompVis model code use.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace laptopdiff::unet {

inline constexpr std::string_view kUNetPrefix = "model.diffusion_model.";
inline constexpr std::string_view kVaePrefix = "first_stage_model.";
// SD 1: transformers names. SD 2: OpenCLIP names. SD XL: the first tower has transformers names, the second OpenCLIP's.
inline constexpr std::string_view kSd1TextPrefix = "cond_stage_model.transformer.";
inline constexpr std::string_view kSd2TextPrefix = "cond_stage_model.model.";
inline constexpr std::string_view kXlText1Prefix = "conditioner.embedders.0.transformer.";
inline constexpr std::string_view kXlText2Prefix = "conditioner.embedders.1.model.";

// Only the first up-sampler differs: SD XL has it behind an attention (slot 2), SD 1 and 2 behind a ResNet (slot 1);
// the tiny students of SD keep SD's slot although they have attention there.
enum class Family { sd, sd_xl };

// "down_blocks.1.attentions.0.proj_in.weight" <-> "input_blocks.4.1.proj_in.weight". Reading takes either slot.
std::optional<std::string> original_unet_name(std::string_view diffusers, Family family);
std::optional<std::string> diffusers_unet_name(std::string_view original);

// "decoder.up_blocks.0.resnets.1.conv1.weight" <-> "decoder.up.3.block.1.conv1.weight" for 4 `levels`.
// Attention projections are matrices in diffusers, 1x1 convolutions in original files.
std::optional<std::string> original_vae_name(std::string_view diffusers, int levels);
std::optional<std::string> diffusers_vae_name(std::string_view original, int levels);

// A tensor of plain attention under the name it has now: it was once query, key, value and proj_attn in diffusers.
std::string current_attention_name(std::string name);

// Where a transformers tensor (`text_model.` in front, but for `text_projection.weight`) is in OpenCLIP's tower.
struct OpenClipPlace {
  std::string name;          // "transformer.resblocks.0.attn.in_proj_weight"
  std::optional<int> third;  // 0, 1, 2: the q, k or v rows of a fused tensor
  bool transposed = false;   // text_projection
  bool operator==(const OpenClipPlace&) const = default;
};
std::optional<OpenClipPlace> open_clip_place(std::string_view transformers);
// The transformers tensors that an OpenCLIP tensor holds: one, or the q, k and v of a fused one, in this order.
std::vector<std::string> transformers_text_names(std::string_view open_clip);

}  // namespace laptopdiff::unet
