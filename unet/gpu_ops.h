// What an executor for inference does on a GPU beyond LibTorch's own operations: the kernels of gpu_kernels.h on
// tensors, and convolutions and linear layers around them. Images are channels-last.
//
// LibTorch's group normalization goes through a channels-first copy, and a convolution's bias and residual each read
// and write the image once more; between matrix products a U-Net does little else.
#pragma once

#include "unet/group_norm.h"

namespace laptopdiff::unet {

// Whether this build has the kernels, and whether they take this type (f32, bf16 or f16).
bool has_gpu_ops(at::ScalarType dtype);

// image [B, C, H, W] on a GPU; returns it channels-last. A group that holds NaN or Inf becomes NaN.
at::Tensor gpu_group_norm(const at::Tensor& image, const GroupNorm& norm);

// [..., 2C] -> [..., C]: the first half times GELU of the second.
at::Tensor gpu_geglu(const at::Tensor& halves);

// softmax(q k^T / sqrt(D)) v; q [B, heads, N, D], k and v [B, heads, T, D]. In bf16 and f16, where LibTorch would trust
// it, it is cuDNN's kernel: on an H100 1.5 to 1.8 times as fast as the one that LibTorch takes where bits must repeat.
at::Tensor gpu_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v);

// conv2d(image, kernel, stride, padding) + bias + residual; an undefined bias or residual is not added. `kernel`
// [out, in, k, k] channels-last. Returns it channels-last.
at::Tensor gpu_conv(const at::Tensor& image, const at::Tensor& kernel, const at::Tensor& bias, std::int64_t stride,
                    std::int64_t padding, const at::Tensor& residual);

}  // namespace laptopdiff::unet
