// In place of gpu_ops.cpp in a build without CUDA.
#include <torch/types.h>

#include "unet/gpu_ops.h"

namespace laptopdiff::unet {

bool has_gpu_ops(at::ScalarType) { return false; }

at::Tensor gpu_group_norm(const at::Tensor&, const GroupNorm&) { TORCH_CHECK(false, "a build without CUDA"); }
at::Tensor gpu_geglu(const at::Tensor&) { TORCH_CHECK(false, "a build without CUDA"); }
at::Tensor gpu_attention(const at::Tensor&, const at::Tensor&, const at::Tensor&) {
  TORCH_CHECK(false, "a build without CUDA");
}
at::Tensor gpu_conv(const at::Tensor&, const at::Tensor&, const at::Tensor&, std::int64_t, std::int64_t,
                    const at::Tensor&) {
  TORCH_CHECK(false, "a build without CUDA");
}

}  // namespace laptopdiff::unet
