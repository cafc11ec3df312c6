#include "pruning/criteria/sampled.h"

#include <torch/types.h>

#include <limits>

#include "runtime/error.h"

namespace laptopdiff::pruning {

runtime::TensorMap Sampled::measure(const Block&, std::int64_t part) {
  if (part == 0) return {{"drawn", draw(subject_.base)}};
  try {
    return {{"drawn", draw(subject_.removables.without[static_cast<std::size_t>(part) - 1])}};
  } catch (const runtime::Error& error) {
    if (error.code() != runtime::ExitCode::non_finite) throw;
    return {{"drawn", at::full({1}, std::numeric_limits<double>::quiet_NaN(), at::kDouble)}};
  }
}

Measured Sampled::fold(const Block&, const std::vector<runtime::TensorMap>& parts) const {
  const at::Tensor all = parts.front().at("drawn");
  std::vector<at::Tensor> rows;
  for (std::size_t part = 1; part < parts.size(); ++part) rows.push_back(compare(all, parts[part].at("drawn")));
  return {at::stack(rows), {}};
}

}  // namespace laptopdiff::pruning
