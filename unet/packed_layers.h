// Linear layers and convolutions whose weights lie in memory as oneDNN multiplies them, for inference on the CPU.
//
// With plain weights oneDNN lays them out anew at every call, which for the deep layers of a U-Net takes longer than
// the product. A packed weight is opaque; a convolution's may take 16/9 of the memory (cpu_winograd.h).
#pragma once

#include <ATen/core/Tensor.h>

namespace laptopdiff::unet {

// Whether LibTorch and this processor run packed layers of this type.
bool can_pack(at::ScalarType dtype);

// [out, in], dense. `rows` is how many are multiplied at once: a hint, any number works later.
at::Tensor pack_linear(const at::Tensor& matrix, std::int64_t rows);

struct ConvShape {
  std::int64_t stride = 1, padding = 0;
  std::int64_t height = 0, width = 0;  // of the input: a hint
};
// [out, in, k, k].
at::Tensor pack_conv(const at::Tensor& kernel, const ConvShape& shape);

// What is done to x W^T + b before it is written: nothing, GELU, or one operation with a tensor of the output's size.
enum class Epilogue { none, gelu, add, multiply };
at::Tensor packed_linear(const at::Tensor& input, const at::Tensor& matrix, const at::Tensor& bias,
                         Epilogue epilogue = Epilogue::none, const at::Tensor& other = {});

// An undefined `residual` is not added. Images are best channels-last, and come out so.
at::Tensor packed_conv(const at::Tensor& image, const at::Tensor& kernel, const at::Tensor& bias,
                       const ConvShape& shape, const at::Tensor& residual = {});

}  // namespace laptopdiff::unet
