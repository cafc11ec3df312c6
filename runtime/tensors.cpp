#include "runtime/tensors.h"

#include <torch/cuda.h>
#include <torch/types.h>

#include "runtime/error.h"
#include "runtime/hash.h"
#include "runtime/non_finite.h"

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

// What a mapped tensor's storage owns; its deleter tells such a storage from every other.
using FileHolder = std::shared_ptr<const SafetensorsFile>;
void delete_holder(void* holder) { delete static_cast<FileHolder*>(holder); }

constexpr std::int64_t kChunk = 1 << 20;  // elements looked at together: bounds the memory of a check

// False where it holds no NaN or Inf.
bool may_hold_non_finite(const at::Tensor& tensor) {
  if (!tensor.device().is_cpu() || !tensor.is_contiguous()) return true;
  return runtime::may_hold_non_finite(dtype_of(tensor), tensor.const_data_ptr(), tensor.numel());
}

// NaNs and Infs among the elements.
std::pair<std::int64_t, std::int64_t> count_non_finite(const at::Tensor& tensor) {
  std::int64_t nans = 0, infs = 0;
  const at::Tensor flat = tensor.reshape(-1);
  for (std::int64_t first = 0; first < flat.numel(); first += kChunk) {
    const at::Tensor part = flat.narrow(0, first, std::min(kChunk, flat.numel() - first));
    if (!may_hold_non_finite(part)) continue;
    // The 8-bit types have no isnan of their own; a double would overflow in f32.
    const at::Tensor values = part.scalar_type() == at::kDouble ? part : part.to(at::kFloat);
    // A NaN or Inf always reaches the sum; a sum that overflows is recounted.
    if (at::isfinite(values.sum()).item<bool>()) continue;
    nans += at::isnan(values).sum().item<std::int64_t>();
    infs += at::isinf(values).sum().item<std::int64_t>();
  }
  return {nans, infs};
}

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
    file->release(view.data, view.bytes);
    return copy;
  }
  return at::for_blob(const_cast<std::byte*>(view.data), view.shape)
      .context(new FileHolder(std::move(file)), &delete_holder)
      .options(options)
      .make_tensor();
}

void release_pages(const at::Tensor& tensor) {
  if (!tensor.has_storage()) return;
  const FileHolder* file = tensor.storage().data_ptr().cast_context<FileHolder>(&delete_holder);
  if (file == nullptr) return;
  (*file)->release(static_cast<const std::byte*>(tensor.const_data_ptr()), tensor.nbytes());
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
    const auto [nans, infs] = count_non_finite(tensor);
    if (nans + infs > 0) bad.push_back(cat(name, " (", nans, " NaN, ", infs, " Inf)"));
  }
  return bad;
}

std::string Misfits::text() const {
  constexpr std::size_t kMost = 40;
  std::string text;
  const std::pair<const char*, const std::vector<std::string>*> kinds[] = {
      {"missing", &missing}, {"unexpected", &unexpected}, {"wrong shape or type", &misshapen}};
  for (const auto& [kind, names] : kinds) {
    if (!names->empty()) text += cat("\n  ", kind, " (", names->size(), "): ", listing(*names, kMost));
  }
  return text;
}

std::string sizes_text(const at::Tensor& tensor) { return shape_text(tensor.sizes().vec()); }

}  // namespace laptopdiff::runtime
