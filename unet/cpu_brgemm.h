// oneDNN's small matrix kernels, which LibTorch offers in ATen/native/CPUBlas.h: whether they are there.
#pragma once

#include <c10/core/ScalarType.h>

namespace laptopdiff::unet {

// Whether at::native::cpublas::brgemm multiplies this type (f32, or bf16 with its right operand in pairs of rows) with
// this LibTorch on this processor.
bool has_brgemm(at::ScalarType dtype);

}  // namespace laptopdiff::unet
