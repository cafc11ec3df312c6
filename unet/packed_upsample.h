// A 3x3 convolution of an image made twice as large, from the image as it was, for inference on the CPU.
//
// Each pixel stands four times in the enlarged image, so a 3x3 window sees only 2x2 different ones: an output pixel at
// even or odd row and column is a 2x2 convolution whose weights are sums of those of the 3x3. That is 16 products
// where the long way has 36, and the enlarged image is never made. Sums are taken in f32 and rounded once: in bf16 the
// output is 1.2 times as far from the exact one as the long way's (which rounds no weight), in f32 as near.
#pragma once

#include <ATen/core/Tensor.h>

#include <array>

namespace laptopdiff::unet {

// By the parity of the output's row, then of its column: [out, in, 2, 2] each, laid out by pack_conv().
using UpsampleKernels = std::array<at::Tensor, 4>;

// kernel [out, in, 3, 3]; height and width are the small image's: a hint.
UpsampleKernels pack_upsample(const at::Tensor& kernel, std::int64_t height, std::int64_t width);

// image [B, C, H, W] -> [B, out, 2H, 2W], channels-last: conv2d(nearest 2x(image), kernel, padding 1) + bias.
at::Tensor packed_upsample(const at::Tensor& image, const UpsampleKernels& kernels, const at::Tensor& bias);

}  // namespace laptopdiff::unet
