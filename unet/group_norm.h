// Group normalization with what stands around it in a U-Net, for the kernels that do all of it in one go:
// act((norm(x + add) * gain + bias) * (1 + scale) + shift).
#pragma once

#include <ATen/core/Tensor.h>

namespace laptopdiff::unet {

// Undefined tensors are left out. All are of the image's type.
struct GroupNorm {
  std::int64_t groups = 1;
  double eps = 1e-5;
  at::Tensor gain{}, bias{};    // [C]
  at::Tensor add{};             // [B, C]
  at::Tensor scale{}, shift{};  // [B, C], both or none
  bool silu = false;
};

}  // namespace laptopdiff::unet
