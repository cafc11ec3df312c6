// The weights of a pipeline component (text encoder, VAE, CLIP), put into its module.
#pragma once

#include <torch/nn/module.h>

#include <string>

#include "runtime/tensors.h"

namespace laptopdiff::diffusion {

// Throws Error(bad_input) that lists all missing, unexpected and wrongly shaped tensors at once. Reads no weight.
void check_module(const torch::nn::Module& module, const runtime::TensorMap& weights, const std::string& where);

// Copies `weights` into the parameters and buffers of `module`, converted to the parameter's dtype (f32).
// Throws as check_module does, and Error(non_finite) for NaN and Inf.
void load_module(torch::nn::Module& module, const runtime::TensorMap& weights, const std::string& where);

}  // namespace laptopdiff::diffusion
