// A model folder's safetensors files: one file, or the shards of an index, in full precision or as a variant.
#pragma once

#include <filesystem>
#include <string>

#include "runtime/tensors.h"

namespace laptopdiff::runtime {

// All tensors of `folder`, as views of its mapped files. For stem "model": model.safetensors, else the shards of
// model.safetensors.index.json, else the one variant there is (model.fp16.safetensors, or the shards of
// model.safetensors.index.fp16.json). With `variant` ("fp16") only that one's. A shard must lie in the folder itself.
// Throws Error(bad_input): no weights (pickle files beside it are named, with the way out), several variants and none
// named, damaged files, and all tensors in which the index and its shards differ.
TensorMap read_weight_files(const std::filesystem::path& folder, const std::string& stem,
                            const std::string& variant = "");

// The same for a part of something larger: where it has no such variant, as if none were asked for.
TensorMap read_preferred_weight_files(const std::filesystem::path& folder, const std::string& stem,
                                      const std::string& variant);

}  // namespace laptopdiff::runtime
