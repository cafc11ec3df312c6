// A model folder's safetensors files: one file, or the shards of an index, in full precision or as the fp16 variant.
#pragma once

#include <filesystem>
#include <string>

#include "runtime/tensors.h"

namespace laptopdiff::runtime {

// All tensors of `folder`, as views of its mapped files. For stem "model": model.safetensors, else the shards of
// model.safetensors.index.json, else model.fp16.safetensors or its shards. A shard must lie in the folder itself.
// Throws Error(bad_input): no weights (pickle files beside it are named, with the way out), damaged files, and all
// tensors that the index promises and a shard lacks.
TensorMap read_weight_files(const std::filesystem::path& folder, const std::string& stem);

}  // namespace laptopdiff::runtime
