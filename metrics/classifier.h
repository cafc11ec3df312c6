// A ResNet classifier in the layout of transformers' ResNetForImageClassification, in evaluation mode.
//
// Its pooled features stand in for Inception's where a data set has its own classifier, and its labels tell whether a
// picture shows what its prompt says. Letters: N pictures, D = hidden_sizes.back(), K classes.
// Source: He et al., "Deep residual learning for image recognition", CVPR'16.
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

// The fields of a transformers ResNetConfig that change the maths, with its defaults.
struct ResNetConfig {
  std::int64_t num_channels = 3;
  std::int64_t embedding_size = 64;
  std::vector<std::int64_t> hidden_sizes{256, 512, 1024, 2048};
  std::vector<std::int64_t> depths{3, 4, 6, 3};
  std::string layer_type = "bottleneck";  // or "basic"
  bool downsample_in_first_stage = false;
  bool downsample_in_bottleneck = false;
  std::vector<std::string> labels{"LABEL_0", "LABEL_1"};  // by class number

  bool operator==(const ResNetConfig&) const = default;
};

// From a config.json. Throws Error(bad_input) for other model types and activations, impossible sizes, and class
// numbers in `id2label` that are not 0, 1, ..., K - 1.
ResNetConfig resnet_config(const runtime::Json& config, const std::string& where);

struct ClassifierOutput {
  at::Tensor logits;    // f32 [N, K]
  at::Tensor features;  // f32 [N, D], averaged over positions
};

class Classifier {
 public:
  // Reads config.json, model.safetensors (any float dtype, computed in f32) and preprocessor_config.json.
  // Throws Error(bad_input), listing missing, unexpected and wrongly shaped tensors at once.
  static Classifier load(const std::filesystem::path& folder, c10::Device device);

  // U8 pictures [H, W, 1 or 3], each of any size; they are run as one batch. Results are on the CPU.
  ClassifierOutput run(const std::vector<at::Tensor>& pictures) const;

  const ResNetConfig& config() const;
  const Preprocess& preprocess() const;
  // The class of this name or number. Throws Error(bad_input) naming `where` and the near names.
  std::int64_t class_of(const std::string& name_or_number, const std::string& where) const;

 private:
  struct Parts;
  explicit Classifier(std::shared_ptr<const Parts> parts) : parts_(std::move(parts)) {}

  std::shared_ptr<const Parts> parts_;
};

}  // namespace laptopdiff::metrics
