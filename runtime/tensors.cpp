#include "runtime/tensors.h"

#include <torch/cuda.h>
#include <torch/types.h>

#include "runtime/error.h"
#include "runtime/hash.h"

namespace laptopdiff::runtime {
namespace {

constexpr std::pair<DType, at::ScalarType> kTypes[] = {
    {DType::boolean, at::kBool},
    {DType::u8, at::kByte},
    {DType::i8, at::kChar},
    {DType::f8_e4m3, at::kFloat8_e4m3fn},
    {DType::f8_e5m2, at::kFloat8_e5m2},
    {DType::u16, at::kUInt16},
    {DType::i16, at::kShort},
    {DType::f16, at::kHalf},
    {DType::bf16, at::kBFloat16},
    {DType::u32, at::kUInt32},
    {DType::i32, at::kInt},
    {DType::f32, at::kFloat},
    {DType::u64, at::kUInt64},
    {DType::i64, at::kLong},
    {DType::f64, at::kDouble},
};

}  // namespace

at::ScalarType scalar_type(DType dtype) {
  for (const auto& [ours, torchs] : kTypes) {
    if (ours == dtype) return torchs;
  }
  TORCH_CHECK(false, "scalar_type: unknown dtype");
}

DType dtype_of(const at::Tensor& tensor) {
  for (const auto& [ours, torchs] : kTypes) {
    if (torchs == tensor.scalar_type()) return ours;
  }
  TORCH_CHECK(false, "dtype_of: safetensors has no name for ", tensor.scalar_type());
}

at::Tensor view_tensor(std::shared_ptr<const SafetensorsFile> file, const TensorView& view) {
  const auto options = at::TensorOptions().dtype(scalar_type(view.dtype));
  if (view.bytes == 0) return at::empty(view.shape, options);
  // Data offsets need not be aligned to the element; torch's kernels need it.
  if (reinterpret_cast<std::uintptr_t>(view.data) % dtype_size(view.dtype) != 0) {
    at::Tensor copy = at::empty(view.shape, options);
    std::memcpy(copy.data_ptr(), view.data, view.bytes);
    return copy;
  }
  void* data = const_cast<std::byte*>(view.data);
  return at::from_blob(
      data, view.shape, [file = std::move(file)](void*) {}, options);
}

TensorMap read_tensors(const std::filesystem::path& path) {
  const auto file = SafetensorsFile::open(path);
  TensorMap tensors;
  for (const auto& [name, view] : file->tensors()) tensors.emplace(name, view_tensor(file, view));
  return tensors;
}

void write_tensors(const std::filesystem::path& path, const TensorMap& tensors,
                   const std::map<std::string, std::string>& metadata) {
  TensorMap held;  // keeps the contiguous copies alive until they are written
  std::map<std::string, TensorView> views;
  for (const auto& [name, tensor] : tensors) {
    const at::Tensor& plain = held[name] = tensor.detach().to(at::kCPU).contiguous();
    views[name] = TensorView{dtype_of(plain), plain.sizes().vec(),
                             static_cast<const std::byte*>(plain.const_data_ptr()), plain.nbytes()};
  }
  write_safetensors(path, views, metadata);
}

at::Device parse_device(const std::string& text) {
  if (text == "auto") return torch::cuda::is_available() ? at::Device(at::kCUDA, 0) : at::Device(at::kCPU);
  if (text == "cpu") return at::Device(at::kCPU);
  const bool indexed = text.rfind("cuda:", 0) == 0 && text.size() > 5 && text.size() < 8 &&
                       text.find_first_not_of("0123456789", 5) == std::string::npos;
  if (text != "cuda" && !indexed) throw usage_error("--device ", text, ": expected auto, cpu, cuda or cuda:N");
  const int index = indexed ? std::stoi(text.substr(5)) : 0;
  const int count = static_cast<int>(torch::cuda::device_count());
  if (index >= count) {
    throw usage_error("--device ", text, ": LibTorch sees ", count, " CUDA devices; `laptopdiff doctor` says more");
  }
  return at::Device(at::kCUDA, static_cast<c10::DeviceIndex>(index));
}

at::ScalarType parse_dtype(const std::string& text) {
  if (text == "f32") return at::kFloat;
  if (text == "bf16") return at::kBFloat16;
  if (text == "f16") return at::kHalf;
  throw usage_error("--dtype ", text, ": expected f32, bf16 or f16");
}

std::string tensors_sha256(const TensorMap& tensors) {
  Sha256 hash;
  for (const auto& [name, tensor] : tensors) {
    const at::Tensor plain = tensor.detach().to(at::kCPU).contiguous();
    hash.add(cat(name, '\n', dtype_name(dtype_of(plain)), '\n', sizes_text(plain), '\n'));
    hash.add(plain.const_data_ptr(), plain.nbytes());
  }
  return hash.hex();
}

std::vector<std::string> non_finite_tensors(const TensorMap& tensors) {
  std::vector<std::string> bad;
  for (const auto& [name, tensor] : tensors) {
    if (!tensor.is_floating_point()) continue;
    // The 8-bit types have no isnan of their own; a double would overflow in f32.
    const at::Tensor values = tensor.scalar_type() == at::kDouble ? tensor : tensor.to(at::kFloat);
    if (at::isfinite(values.sum()).item<bool>())
      continue;  // a NaN or Inf always reaches the sum; overflow is recounted
    const auto nans = at::isnan(values).sum().item<std::int64_t>();
    const auto infs = at::isinf(values).sum().item<std::int64_t>();
    if (nans + infs > 0) bad.push_back(cat(name, " (", nans, " NaN, ", infs, " Inf)"));
  }
  return bad;
}

std::string sizes_text(const at::Tensor& tensor) { return shape_text(tensor.sizes().vec()); }

}  // namespace laptopdiff::runtime
