#include "unet/gpu_ops.h"

#include <ATen/Context.h>
#include <ATen/cuda/CUDAContext.h>
#include <ATen/detail/CUDAHooksInterface.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <torch/types.h>

#include "unet/gpu_kernels.h"

namespace laptopdiff::unet {
namespace {

gpu::Element element_of(const at::Tensor& tensor) {
  switch (tensor.scalar_type()) {
    case at::kFloat: return gpu::Element::f32;
    case at::kBFloat16: return gpu::Element::bf16;
    case at::kHalf: return gpu::Element::f16;
    default: TORCH_CHECK(false, "no GPU kernel for ", tensor.scalar_type());
  }
}

void check(int error) { C10_CUDA_CHECK(static_cast<cudaError_t>(error)); }

gpu::Stream stream() { return c10::cuda::getCurrentCUDAStream().stream(); }

at::Tensor channels_last(const at::Tensor& image) { return image.contiguous(at::MemoryFormat::ChannelsLast); }

// What is as good as channels-last in memory but may carry other strides (a dimension of one pixel or channel).
const void* data(const at::Tensor& tensor) { return tensor.defined() ? tensor.const_data_ptr() : nullptr; }

at::Tensor dense(const at::Tensor& tensor) { return tensor.defined() ? tensor.contiguous() : tensor; }

at::Tensor plain_group_norm(const at::Tensor& image, const GroupNorm& norm) {
  const auto pixelwise = [](const at::Tensor& x) { return x.unsqueeze(2).unsqueeze(3); };  // [B, C, 1, 1]
  at::Tensor normed = at::group_norm(norm.add.defined() ? image + pixelwise(norm.add) : image, norm.groups, norm.gain,
                                     norm.bias, norm.eps);
  if (norm.scale.defined()) normed = normed * (1 + pixelwise(norm.scale)) + pixelwise(norm.shift);
  return channels_last(norm.silu ? at::silu(normed) : normed);
}

// Where LibTorch itself would trust cuDNN's kernel (`check_cudnn_*` in its sdp_utils), of what was measured: Hopper and
// the data-centre cards of Blackwell, no single key, and a cuDNN that takes keys that 128 does not divide.
bool cudnn_takes(const at::Tensor& q, const at::Tensor& k) {
  constexpr int kHopper = 9, kBlackwell = 10;
  constexpr long kAfterVersion = 91500;
  constexpr std::int64_t kWidestHead = 128, kHeadStep = 8;
  const int card = at::cuda::getCurrentDeviceProperties()->major;
  static const long version = at::globalContext().hasCuDNN() ? at::detail::getCUDAHooks().versionRuntimeCuDNN() : 0;
  return q.scalar_type() != at::kFloat && q.size(3) % kHeadStep == 0 && q.size(3) <= kWidestHead && k.size(2) > 1 &&
         (card == kHopper || card == kBlackwell) && version > kAfterVersion &&
         at::globalContext().userEnabledCuDNNSDP();
}

}  // namespace

bool has_gpu_ops(at::ScalarType dtype) { return dtype == at::kFloat || dtype == at::kBFloat16 || dtype == at::kHalf; }

at::Tensor gpu_group_norm(const at::Tensor& input, const GroupNorm& norm) {
  const gpu::Element element = element_of(input);
  const auto channels = static_cast<int>(input.size(1));
  if (input.numel() == 0 || !gpu::takes_group_norm(input.size(0), channels, element))
    return plain_group_norm(input, norm);
  const c10::cuda::CUDAGuard guard(input.device());
  constexpr std::uintptr_t kAlignment = 16;
  at::Tensor image = channels_last(input);
  if (reinterpret_cast<std::uintptr_t>(image.const_data_ptr()) % kAlignment != 0) image = image.clone();
  const at::Tensor add = dense(norm.add), scale = dense(norm.scale), shift = dense(norm.shift);
  at::Tensor output = at::empty_like(image, image.options(), at::MemoryFormat::ChannelsLast);
  gpu::GroupNormTask task;
  task.image = data(image);
  task.output = output.mutable_data_ptr();
  task.images = image.size(0);
  task.pixels = image.size(2) * image.size(3);
  task.channels = channels;
  task.groups = static_cast<int>(norm.groups);
  task.eps = static_cast<float>(norm.eps);
  task.gain = data(norm.gain);
  task.bias = data(norm.bias);
  task.add = data(add);
  task.scale = data(scale);
  task.shift = data(shift);
  task.silu = norm.silu;
  const at::Tensor scratch =
      at::empty({static_cast<std::int64_t>(gpu::group_norm_scratch(task, element))}, image.options().dtype(at::kFloat));
  task.scratch = scratch.data_ptr<float>();
  check(gpu::group_norm(task, element, stream()));
  return output;
}

at::Tensor gpu_geglu(const at::Tensor& input) {
  const c10::cuda::CUDAGuard guard(input.device());
  const at::Tensor halves = input.contiguous();
  std::vector<std::int64_t> sizes = halves.sizes().vec();
  sizes.back() /= 2;
  at::Tensor output = at::empty(sizes, halves.options());
  const std::int64_t width = sizes.back();
  check(gpu::geglu(data(halves), output.mutable_data_ptr(), width == 0 ? 0 : output.numel() / width, width,
                   element_of(halves), stream()));
  return output;
}

at::Tensor gpu_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) {
  const c10::cuda::CUDAGuard guard(q.device());
  if (!cudnn_takes(q, k)) return at::scaled_dot_product_attention(q, k, v);
  return std::get<0>(at::_scaled_dot_product_cudnn_attention(q, k, v, /*attn_bias=*/{}, /*compute_log_sumexp=*/false,
                                                             /*dropout_p=*/0.0, /*is_causal=*/false,
                                                             /*return_debug_mask=*/false));
}

at::Tensor gpu_conv(const at::Tensor& image, const at::Tensor& kernel, const at::Tensor& bias, std::int64_t stride,
                    std::int64_t padding, const at::Tensor& residual) {
  const c10::cuda::CUDAGuard guard(image.device());
  const bool pointwise = kernel.size(2) == 1 && kernel.size(3) == 1 && stride == 1 && padding == 0;
  at::Tensor output;
  if (pointwise) {                                                         // a matrix product, whose bias costs nothing
    const at::Tensor pixels = channels_last(image).permute({0, 2, 3, 1});  // [B, H, W, in]
    output = at::linear(pixels, kernel.flatten(1), bias).permute({0, 3, 1, 2});
    if (!residual.defined()) return output;
  } else {
    output = channels_last(at::conv2d(channels_last(image), kernel, {}, stride, padding));
    if (!bias.defined() && !residual.defined()) return output;
  }
  const at::Tensor more = residual.defined() ? channels_last(residual) : residual;
  check(gpu::add_in_place(output.mutable_data_ptr(), pointwise ? nullptr : data(bias), data(more),
                          output.numel() / output.size(1), output.size(1), element_of(output), stream()));
  return output;
}

}  // namespace laptopdiff::unet
