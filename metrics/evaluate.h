// Numbers for a folder of generated pictures, with all that is needed to know where they came from.
//
// | metric   | needs                 | model       | value                                                        |
// |----------|-----------------------|-------------|--------------------------------------------------------------|
// | clip     | prompts               | clip/       | mean cosine of picture and prompt, not times 100             |
// | pick     | prompts               | pick/       | mean exp(logit_scale) * cosine                               |
// | fid      | reference             | classifier/ | Frechet distance of the classifier's pooled features         |
// | kid      | reference             | classifier/ | kernel distance of the same features                         |
// | accuracy | labels                | classifier/ | share of pictures whose class is the label                   |
//
// fid and kid use the classifier that the caller gives, not Inception: they compare models on one data set and are not
// on the scale of published FIDs.
#pragma once

#include <c10/core/Device.h>

#include <cstdint>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

namespace laptopdiff::metrics {

struct EvaluateOptions {
  std::filesystem::path images;                    // folder with 000000.png, 000001.png, ...
  std::optional<std::filesystem::path> reference;  // folder of PNG files, or of images.safetensors
  std::optional<std::filesystem::path> prompts;    // one a line, or .jsonl rows with `text`
  std::optional<std::filesystem::path> labels;     // class name or number a line, or .jsonl rows with `label`
  std::filesystem::path models;                    // holds clip/, pick/, classifier/ as needed
  std::vector<std::string> metrics;                // of evaluate_metrics()
  std::int64_t lines_limit = 0;                    // first so many lines of prompts and labels; 0: all
  std::int64_t reference_limit = 0;                // first so many reference pictures; 0: all
  std::uint64_t seed = 0;                          // of bootstrap resamples and KID subsets
  std::int64_t resamples = 1000;                   // bootstrap resamples
  std::int64_t kid_subsets = 100;
  std::int64_t kid_subset_size = 1000;  // cut to the smaller set; the result says what was used
  std::int64_t batch = 64;
  c10::Device device = c10::Device(c10::kCPU);
};

// The metrics' names, in the order in which they are computed.
const std::vector<std::string>& evaluate_metrics();

// Returns {"format": "laptopdiff.metrics/1", "images", "reference", "prompts", "labels", "models", "metrics", "seed"}.
// Each metric has `value`; means have `standard_error` and a bootstrap `interval`; distances have both counts.
// Throws Error(usage) for unknown or no metrics, and for one whose prompts, reference or labels are not given;
// Error(bad_input) for a missing model folder (named), missing or unreadable pictures, other counts of prompts or
// labels than pictures, and pictures of several sizes under fid or kid (the others allow them; the result says so).
nlohmann::json evaluate(const EvaluateOptions& options);

}  // namespace laptopdiff::metrics
