// Group normalization of channels-last images on the CPU, for inference.
//
// One pass does all of it, where the plain path reads and writes the image once for each part. Sums are taken over
// blocks that depend on shapes alone, in a fixed order: results do not depend on threads or on the rest of the batch.
#pragma once

#include "unet/group_norm.h"

namespace laptopdiff::unet {

// image [B, C, H, W], f32 or bf16, on the CPU; returns it channels-last. A group that holds NaN or Inf becomes NaN.
at::Tensor cpu_group_norm(const at::Tensor& image, const GroupNorm& norm);

}  // namespace laptopdiff::unet
