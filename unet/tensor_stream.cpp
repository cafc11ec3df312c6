#include "unet/tensor_stream.h"

#include <torch/types.h>

#include <vector>

#include "runtime/error.h"
#include "runtime/tensors.h"

namespace laptopdiff::unet {
namespace {

using runtime::cat;

at::Tensor finished(const std::string& name, const StreamedTensor& entry) {
  const at::ScalarType type = runtime::scalar_type(entry.dtype);
  const at::Tensor made = entry.make();
  const at::Tensor plain = made.detach().to(at::kCPU, type).contiguous();
  TORCH_CHECK(plain.sizes() == at::IntArrayRef(entry.shape), name, ": made ", plain.sizes(), " for ", entry.shape);
  const std::vector<std::string> bad = runtime::non_finite_tensors({{name, plain}});
  if (!bad.empty()) {
    const bool overflow = runtime::non_finite_tensors({{name, made}}).empty();
    throw runtime::non_finite_error(
        bad.front(), overflow ? cat(" once stored as ", runtime::dtype_name(entry.dtype), "; choose another --storage")
                              : std::string(" in the model"));
  }
  if (!plain.is_alias_of(made)) runtime::release_pages(made);
  return plain;
}

}  // namespace

StreamedTensor streamed(const at::Tensor& tensor, std::optional<at::ScalarType> storage) {
  const bool convert = storage && tensor.is_floating_point();
  const runtime::DType dtype = runtime::dtype_of(convert ? at::empty({0}, *storage) : tensor);
  return {dtype, tensor.sizes().vec(), [tensor] { return tensor; }};
}

void write_stream(const std::filesystem::path& path, const TensorStream& tensors) {
  std::map<std::string, runtime::TensorLayout> layouts;
  for (const auto& [name, tensor] : tensors) layouts[name] = {tensor.dtype, tensor.shape};
  runtime::write_safetensors(path, layouts, {{"format", "pt"}}, [&](const std::string& name, const auto& sink) {
    const at::Tensor tensor = finished(name, tensors.at(name));
    sink(tensor.const_data_ptr(), tensor.nbytes());
    runtime::release_pages(tensor);
  });
}

}  // namespace laptopdiff::unet
