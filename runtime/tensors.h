// The bridge between safetensors files and torch tensors, and the choice of device and dtype.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/Device.h>
#include <c10/core/ScalarType.h>

#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "runtime/safetensors.h"

namespace laptopdiff::runtime {

// Name -> tensor. std::map, so that every walk over it is in the same order everywhere.
using TensorMap = std::map<std::string, at::Tensor>;

at::ScalarType scalar_type(DType dtype);
DType dtype_of(const at::Tensor& tensor);

// A tensor over the mapped bytes (no copy); it keeps the file alive. Never write to it.
at::Tensor view_tensor(std::shared_ptr<const SafetensorsFile> file, const TensorView& view);

// Gives back the memory that a tensor over mapped bytes has filled by being read; it is read again when touched again.
// Does nothing to other tensors. Called when a tensor has been converted, so that file and copy are never both held.
void release_pages(const at::Tensor& tensor);

// All tensors of a file, as views. Throws Error(bad_input).
TensorMap read_tensors(const std::filesystem::path& path);

// Writes tensors (made contiguous, moved to the CPU) atomically. Throws Error(resources).
void write_tensors(const std::filesystem::path& path, const TensorMap& tensors,
                   const std::map<std::string, std::string>& metadata = {});

// "auto" (CUDA where there is one), "cpu", "cuda", "cuda:1". Throws Error(usage) for others and for absent devices.
at::Device parse_device(const std::string& text);
// "f32", "bf16", "f16". Throws Error(usage).
at::ScalarType parse_dtype(const std::string& text);

// SHA-256 over sorted (name, dtype, shape, bytes): equal for equal weights, however they are sharded or ordered.
std::string tensors_sha256(const TensorMap& tensors);

// Names of tensors that hold NaN or Inf, with their counts: "conv_in.weight (3 NaN, 0 Inf)".
std::vector<std::string> non_finite_tensors(const TensorMap& tensors);

// How tensors differ from those that a model has: all of it, for one message.
struct Misfits {
  std::vector<std::string> missing, unexpected, misshapen;
  std::size_t count() const { return missing.size() + unexpected.size() + misshapen.size(); }
  // A line for each kind that there is: how many, and the names of the first forty.
  std::string text() const;
};

// {1, 2, 3} as "[1, 2, 3]".
std::string sizes_text(const at::Tensor& tensor);

}  // namespace laptopdiff::runtime
