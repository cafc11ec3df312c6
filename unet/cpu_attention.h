// Attention on the CPU, for inference: softmax(Q K^T / sqrt(D)) V without ever holding the whole score matrix.
//
// LibTorch's own kernel leaves two thirds of the processor idle in bf16; this one hands both products, a block at a
// time, to oneDNN's small matrix kernels (AMX or AVX-512 as the machine has them) and keeps a block's scores in cache.
// The blocks depend on shapes alone, so results do not depend on the number of threads or on the rest of a batch.
// Source: Dao, "FlashAttention-2" (arXiv:2307.08691), algorithm 1.
#pragma once

#include <ATen/core/Tensor.h>

namespace laptopdiff::unet {

// Whether this machine and LibTorch have the matrix kernels for this type (f32 or bf16) and head width D.
bool has_cpu_attention(at::ScalarType dtype, std::int64_t head_width);

// q [B, N, heads * D]; k, v [B, T, heads * D], on the CPU, of one type for which has_cpu_attention() holds; the last
// dimension must be dense. Returns [B, N, heads * D]. NaN in a row of q, or anywhere in k, reaches the rows it would.
at::Tensor cpu_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, std::int64_t heads);

}  // namespace laptopdiff::unet
