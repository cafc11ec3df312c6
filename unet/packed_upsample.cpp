#include "unet/packed_upsample.h"

#include <torch/types.h>

#include "unet/packed_layers.h"

namespace laptopdiff::unet {
namespace {

// Along one axis: an even pixel sees (w0, w1 + w2) of the pixels (i - 1, i), an odd one (w0 + w1, w2) of (i, i + 1).
at::Tensor fold(const at::Tensor& kernel, std::int64_t axis, int parity) {
  const at::Tensor first = kernel.narrow(axis, 0, 1), middle = kernel.narrow(axis, 1, 1),
                   last = kernel.narrow(axis, 2, 1);
  return parity == 0 ? at::cat({first, middle + last}, axis) : at::cat({first + middle, last}, axis);
}

}  // namespace

UpsampleKernels pack_upsample(const at::Tensor& kernel, std::int64_t height, std::int64_t width) {
  UpsampleKernels kernels;
  const at::Tensor wide = kernel.to(at::kFloat);
  for (const int which : {0, 1, 2, 3}) {
    const at::Tensor folded = fold(fold(wide, 2, which / 2), 3, which % 2).to(kernel.scalar_type());
    kernels[static_cast<std::size_t>(which)] = pack_conv(folded, {1, 0, height + 1, width + 1});
  }
  return kernels;
}

at::Tensor packed_upsample(const at::Tensor& image, const UpsampleKernels& kernels, const at::Tensor& bias) {
  const std::int64_t height = image.size(2), width = image.size(3);
  const at::Tensor out = at::empty({image.size(0), kernels[0].size(0), 2 * height, 2 * width}, image.options(),
                                   at::MemoryFormat::ChannelsLast);
  for (const int which : {0, 1, 2, 3}) {
    const int row = which / 2, column = which % 2;
    const at::Tensor padded = at::constant_pad_nd(image, {1 - column, column, 1 - row, row});
    const at::Tensor part = packed_conv(padded, kernels[static_cast<std::size_t>(which)], bias, {});  // [B, out, H, W]
    out.slice(2, row, std::nullopt, 2).slice(3, column, std::nullopt, 2).copy_(part);
  }
  return out;
}

}  // namespace laptopdiff::unet
