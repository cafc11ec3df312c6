// What a scoring model wants done to a picture first: the steps of a transformers preprocessor_config.json.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "metrics/resize.h"
#include "runtime/json.h"

namespace laptopdiff::metrics {

// A picture's preparation, in the order of the fields; a step without a value is left out.
struct Preprocess {
  // At most one of the two: the short side's length at the same aspect ratio, or the whole size.
  std::optional<std::int64_t> shortest_edge;
  std::optional<PictureSize> size;
  Resample resample = Resample::bicubic;
  PassOrder pass_order = PassOrder::pillow_12;
  std::optional<PictureSize> crop;
  CropRule crop_rule = CropRule::transformers;
  std::optional<double> rescale_factor;  // multiplied in double, then rounded to f32
  std::vector<double> mean, std;         // (x - mean) / std in f32; one value, or one a channel; empty: left out

  bool operator==(const Preprocess&) const = default;
};

// From the config of a CLIP-like, ViT-like or ConvNext-like processor (for the last, `crop_pct` is turned into a resize
// and a crop). Throws Error(bad_input) for missing fields, and for steps that are not known here.
Preprocess preprocess_from_json(const runtime::Json& config, const std::string& where);

// From FOLDER/preprocessor_config.json, or the `image_processor` of FOLDER/processor_config.json.
Preprocess read_preprocess(const std::filesystem::path& folder);

// U8 [H, W, 1 or 3] -> f32 [channels, h, w]. Grey is repeated to 3 channels; colour becomes grey by ITU-R 601 luma as
// in Pillow. Throws Error(bad_input) for other channel counts.
at::Tensor prepare(const at::Tensor& picture, const Preprocess& steps, std::int64_t channels);

// `prepare` of many pictures of any sizes: f32 [N, channels, h, w].
// Throws Error(bad_input) where the results differ in size, since `steps` then fixes none.
at::Tensor prepare_batch(const std::vector<at::Tensor>& pictures, const Preprocess& steps, std::int64_t channels);

// For the provenance of a result.
runtime::Json describe(const Preprocess& steps);

}  // namespace laptopdiff::metrics
