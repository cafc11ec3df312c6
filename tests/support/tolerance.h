// How far numbers of a type may be from a reference. Include before doctest: it brings in torch.
#pragma once

#include <torch/types.h>

namespace laptopdiff::test {

// Largest difference, as a share of the reference's largest value.
inline double relative_difference(const at::Tensor& own, const at::Tensor& reference) {
  const at::Tensor exact = reference.to(at::kDouble);
  return ((own.to(at::kDouble) - exact).abs().max() / exact.abs().max()).item<double>();
}

// Of a layer that sums in f32 and rounds its inputs and its output to `dtype`.
inline double rounding_of(at::ScalarType dtype) { return dtype == at::kFloat ? 2e-6 : 1.0 / 128; }

}  // namespace laptopdiff::test
