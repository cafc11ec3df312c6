// 3x3 convolutions in bf16 on the CPU with 16 products for every 36, for inference.
//
// Tiles of 4x4 pixels are turned into 16 sums of pixels, multiplied with as many sums of weights (16 matrix products, a
// block of tiles at a time), and the products turned into 2x2 pixels. Sums of weights are taken in f32 and rounded
// once, so are the sums of pixels; products are summed in f32. The two roundings are what it costs: see the test.
// Blocks depend on shapes alone, so results do not depend on threads or on the rest of a batch. Source: Lavin and Gray,
// "Fast Algorithms for Convolutional Neural Networks" (arXiv:1509.09308), F(2x2, 3x3).
#pragma once

#include <ATen/core/Tensor.h>

namespace laptopdiff::unet {

// Whether this kernel [out, in, 3, 3] can be packed so, on this machine.
bool has_winograd(const at::Tensor& kernel);

// Returns [16, out / 64, in / 2, 64, 2], for cpu_winograd() alone; 16/9 of the memory.
at::Tensor pack_winograd(const at::Tensor& kernel);

// conv2d(image, kernel, padding 1) + bias + residual, rounded once. image [B, in, H, W], bf16; bias [out] and residual
// [B, out, H, W] may be undefined. Returns [B, out, H, W], channels-last.
at::Tensor cpu_winograd(const at::Tensor& image, const at::Tensor& packed, const at::Tensor& bias,
                        const at::Tensor& residual);

}  // namespace laptopdiff::unet
