// A safetensors file written tensor by tensor: each is made when its turn comes and freed before the next.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/ScalarType.h>

#include <filesystem>
#include <functional>
#include <map>
#include <optional>
#include <string>

#include "runtime/safetensors.h"

namespace laptopdiff::unet {

struct StreamedTensor {
  runtime::DType dtype = runtime::DType::f32;
  runtime::Shape shape;
  std::function<at::Tensor()> make;  // of any float dtype; converted to `dtype` as it is written
};
using TensorStream = std::map<std::string, StreamedTensor>;

// `tensor` as it is, or as `storage` where one is named.
StreamedTensor streamed(const at::Tensor& tensor, std::optional<at::ScalarType> storage);

// Atomic. Throws Error(non_finite) naming the tensor that holds NaN or Inf or does not fit its dtype, Error(resources).
void write_stream(const std::filesystem::path& path, const TensorStream& tensors);

}  // namespace laptopdiff::unet
