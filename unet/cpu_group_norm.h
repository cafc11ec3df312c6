// Group normalization of channels-last images on the CPU, for inference, with what stands around it in a U-Net.
//
// One pass writes act((norm(x + add) * gain + bias) * (1 + scale) + shift), where the plain path reads and writes the
// image once for each of these. Sums are taken over blocks that depend on shapes alone, in a fixed order: results do
// not depend on threads or on the rest of the batch.
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

// image [B, C, H, W], f32 or bf16, on the CPU; returns it channels-last. A group that holds NaN or Inf becomes NaN.
at::Tensor cpu_group_norm(const at::Tensor& image, const GroupNorm& norm);

}  // namespace laptopdiff::unet
