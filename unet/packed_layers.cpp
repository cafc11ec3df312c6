#include "unet/packed_layers.h"

#include <ATen/Context.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <torch/types.h>

#include "unet/cpu_winograd.h"

namespace laptopdiff::unet {
namespace {

// Where Winograd's way pays. With fewer channels the sums of pixels cost what the products save. At 16x16 it is faster
// as well, but by less, and there a U-Net is widest: three quarters of the memory for a third of the gain (SD 1.5).
constexpr std::int64_t kWinogradPixels = 32 * 32, kWinogradChannels = 128;

bool goes_by_winograd(const at::Tensor& kernel, const ConvShape& shape) {
  return shape.stride == 1 && shape.padding == 1 && shape.height * shape.width >= kWinogradPixels &&
         kernel.size(1) >= kWinogradChannels && has_winograd(kernel);
}

// LibTorch registers these layers for its own compiler and declares them in no header, so they are called by name.
std::optional<c10::OperatorHandle> find(const char* name, const char* overload = "") {
  return c10::Dispatcher::singleton().findSchema({name, overload});
}

at::Tensor call(const char* name, const char* overload, torch::jit::Stack stack) {
  const auto found = find(name, overload);
  TORCH_CHECK(found, name, ": not in this LibTorch; can_pack() tells");
  found->callBoxed(stack);
  return stack.front().toTensor();
}

c10::IValue optional(const at::Tensor& tensor) { return tensor.defined() ? c10::IValue(tensor) : c10::IValue(); }

c10::List<std::optional<at::Scalar>> no_scalars() { return c10::List<std::optional<at::Scalar>>(); }

bool runs(at::ScalarType dtype) {
  if (!at::globalContext().hasMKLDNN() || !find("mkldnn::_reorder_linear_weight") ||
      !find("mkldnn::_linear_pointwise", "binary") || !find("mkldnn::_convolution_pointwise", "binary"))
    return false;
  const at::Tensor one = at::ones({16, 16}, dtype);
  try {  // a processor without instructions for the type refuses
    return packed_linear(one, pack_linear(one, 16), {}, Epilogue::add, one).defined();
  } catch (const c10::Error&) {
    return false;
  }
}

}  // namespace

bool can_pack(at::ScalarType dtype) {
  static const bool floats = runs(at::kFloat), halves = runs(at::kBFloat16);
  return dtype == at::kFloat ? floats : dtype == at::kBFloat16 && halves;
}

at::Tensor pack_linear(const at::Tensor& matrix, std::int64_t rows) {
  return call("mkldnn::_reorder_linear_weight", "", {matrix.contiguous(), rows});
}

at::Tensor pack_conv(const at::Tensor& kernel, const ConvShape& shape) {
  if (goes_by_winograd(kernel, shape)) return pack_winograd(kernel);
  const std::vector<std::int64_t> input{1, kernel.size(1), shape.height, shape.width};
  return at::mkldnn_reorder_conv2d_weight(kernel.contiguous().to_mkldnn(), {shape.padding, shape.padding},
                                          {shape.stride, shape.stride}, {1, 1}, 1, input);
}

at::Tensor packed_linear(const at::Tensor& input, const at::Tensor& matrix, const at::Tensor& bias, Epilogue epilogue,
                         const at::Tensor& other) {
  const bool binary = epilogue == Epilogue::add || epilogue == Epilogue::multiply;
  if (binary) {
    return call("mkldnn::_linear_pointwise", "binary",
                {input, other, matrix, optional(bias), epilogue == Epilogue::add ? "add" : "mul"});
  }
  const bool gelu = epilogue == Epilogue::gelu;
  return call("mkldnn::_linear_pointwise", "",
              {input, matrix, optional(bias), gelu ? "gelu" : "none", no_scalars(),
               gelu ? c10::IValue("none") : c10::IValue()});  // the exact GELU, not its tanh form
}

at::Tensor packed_conv(const at::Tensor& image, const at::Tensor& kernel, const at::Tensor& bias,
                       const ConvShape& shape, const at::Tensor& residual) {
  if (!kernel.is_mkldnn()) return cpu_winograd(image, kernel, bias, residual);
  const std::vector<std::int64_t> padding(2, shape.padding), stride(2, shape.stride), dilation(2, 1);
  if (residual.defined()) {
    return call("mkldnn::_convolution_pointwise", "binary",
                {image, residual, kernel, optional(bias), padding, stride, dilation, std::int64_t{1}, "add",
                 c10::IValue(), c10::IValue(), no_scalars(), c10::IValue()});
  }
  return call(
      "mkldnn::_convolution_pointwise", "",
      {image, kernel, optional(bias), padding, stride, dilation, std::int64_t{1}, "none", no_scalars(), c10::IValue()});
}

}  // namespace laptopdiff::unet
