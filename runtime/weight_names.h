// How a model folder names its safetensors files: one file or the index of its shards, in full precision or as a
// variant. Knows no torch.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

namespace laptopdiff::runtime {

// For stem "model" and variant "fp16": model.fp16.safetensors and model.safetensors.index.fp16.json; without a variant
// model.safetensors and model.safetensors.index.json.
struct WeightNames {
  std::filesystem::path single, index;
};
WeightNames weight_names(const std::filesystem::path& folder, const std::string& stem, const std::string& variant);

// True where one of the two is there.
bool has_weight_files(const std::filesystem::path& folder, const std::string& stem, const std::string& variant);

// The variants that a folder has, sorted.
std::vector<std::string> weight_variants(const std::filesystem::path& folder, const std::string& stem);

// The one variant of a folder that has no full precision; "" where it has, or several variants.
std::string only_variant(const std::filesystem::path& folder, const std::string& stem);

}  // namespace laptopdiff::runtime
