// The weights of a pipeline component (text encoder, VAE, CLIP): found in its folder, put into its module.
#pragma once

#include <torch/nn/module.h>

#include <filesystem>
#include <string>
#include <vector>

#include "runtime/tensors.h"

namespace laptopdiff::diffusion {

// All tensors of `folder`, as views of the files. For stem "model": model.safetensors, else the shards of
// model.safetensors.index.json, else model.fp16.safetensors (or its shards). Throws Error(bad_input) where there is
// none (a .bin beside it is named, since pickle files are not read), or where a shard lacks a tensor.
runtime::TensorMap read_component_tensors(const std::filesystem::path& folder, const std::string& stem);

// Copies `weights` into the parameters and buffers of `module`, converted to the parameter's dtype (f32).
// Throws Error(bad_input) that lists all missing, unexpected and wrongly shaped tensors at once.
void load_module(torch::nn::Module& module, const runtime::TensorMap& weights, const std::string& where);

}  // namespace laptopdiff::diffusion
