// The weights of a pipeline component (text encoder, VAE, CLIP), put into its module.
#pragma once

#include <torch/nn/module.h>

#include <string>

#include "runtime/tensors.h"

namespace laptopdiff::diffusion {

// Copies `weights` into the parameters and buffers of `module`, converted to the parameter's dtype (f32).
// Throws Error(bad_input) that lists all missing, unexpected and wrongly shaped tensors at once, Error(non_finite) for
// NaN and Inf.
void load_module(torch::nn::Module& module, const runtime::TensorMap& weights, const std::string& where);

}  // namespace laptopdiff::diffusion
