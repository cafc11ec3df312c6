// CLIP and its fine-tuned scorers (PickScore, HPS v2): pictures and texts as unit vectors of one space.
//
// Letters: N pictures or texts, P the projection's width, D the vision tower's. The file layout and the names are those
// of a transformers CLIPModel. Source: Radford et al., "Learning transferable visual models from natural language
// supervision", 2021; vision tower: Dosovitskiy et al., "An image is worth 16x16 words", 2021.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/Device.h>

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "metrics/preprocess.h"
#include "runtime/json.h"

namespace laptopdiff::metrics {

// The fields of a transformers CLIPVisionConfig that change the maths, with its defaults.
struct ClipVisionConfig {
  std::int64_t hidden_size = 768;
  std::int64_t intermediate_size = 3072;
  std::int64_t projection_dim = 512;  // of the CLIPModel, not of its vision_config
  std::int64_t num_hidden_layers = 12;
  std::int64_t num_attention_heads = 12;
  std::int64_t num_channels = 3;
  std::int64_t image_size = 224;
  std::int64_t patch_size = 32;
  std::string hidden_act = "quick_gelu";  // or "gelu"
  double layer_norm_eps = 1e-5;

  bool operator==(const ClipVisionConfig&) const = default;
};

// From the config.json of a CLIPModel. Throws Error(bad_input) for other model types and impossible sizes.
ClipVisionConfig clip_vision_config(const runtime::Json& config, const std::string& where);

class ClipModel {
 public:
  // Reads config.json, model.safetensors (sharded or not; any float dtype, computed in f32), preprocessor_config.json
  // and the tokenizer's files. Throws Error(bad_input) where one is missing or does not fit; missing, unexpected and
  // wrongly shaped tensors are listed at once for each tower.
  static ClipModel load(const std::filesystem::path& folder, c10::Device device);

  // U8 pictures [H, W, 1 or 3], each of any size -> f32 [N, P] of length 1, on the CPU. Throws Error(non_finite).
  at::Tensor image_embeds(const std::vector<at::Tensor>& pictures) const;
  // U8 [N, H, W, 1 or 3].
  at::Tensor image_embeds(const at::Tensor& pictures) const;
  // Framed, cut to the context's length and padded with id 0, which scoring code does whatever the tokenizer says.
  at::Tensor text_embeds(const std::vector<std::string>& texts) const;

  double logit_scale() const;  // as stored: a logarithm
  const Preprocess& preprocess() const;
  const ClipVisionConfig& vision_config() const;

 private:
  struct Parts;
  explicit ClipModel(std::shared_ptr<const Parts> parts) : parts_(std::move(parts)) {}

  std::shared_ptr<const Parts> parts_;
};

}  // namespace laptopdiff::metrics
