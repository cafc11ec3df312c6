#include "metrics/kid.h"

#include <torch/types.h>

#include <cmath>
#include <numeric>
#include <vector>

#include "runtime/error.h"
#include "runtime/random.h"
#include "runtime/tensors.h"

namespace laptopdiff::metrics {
namespace {

using namespace runtime;
enum Side : std::uint64_t { kGenerated = 0, kReference = 1 };

void check_side(const at::Tensor& features, const char* name, std::int64_t subset_size) {
  TORCH_CHECK(features.dim() == 2, "kernel_distance: expected [N, D], got ", features.dim(), " dimensions");
  if (features.size(0) < subset_size) {
    throw input_error("kernel distance: ", features.size(0), " ", name, " samples, a subset takes ", subset_size);
  }
  if (!at::isfinite(features).all().item<bool>()) {
    throw non_finite_error("kernel distance: ", name, " features hold NaN or Inf");
  }
}

// The first `size` steps of a Fisher-Yates shuffle of 0 ... count - 1.
at::Tensor draw(std::int64_t count, std::int64_t size, Stream stream) {
  std::vector<std::int64_t> order(static_cast<std::size_t>(count));
  std::iota(order.begin(), order.end(), std::int64_t{0});
  for (std::size_t i = 0; i < static_cast<std::size_t>(size); ++i) {
    std::swap(order[i], order[i + stream.below(order.size() - i)]);
  }
  order.resize(static_cast<std::size_t>(size));
  return torch::tensor(order, at::kLong);
}

at::Tensor kernel(const at::Tensor& a, const at::Tensor& b) {
  return (a.mm(b.t()) / static_cast<double>(a.size(1)) + 1).pow(3);
}

double squared_mmd(const at::Tensor& x, const at::Tensor& y) {
  const double m = static_cast<double>(x.size(0));
  const auto off_diagonal = [](const at::Tensor& k) { return (k.sum() - k.trace()).item<double>(); };
  return (off_diagonal(kernel(x, x)) + off_diagonal(kernel(y, y))) / (m * (m - 1)) -
         2 * kernel(x, y).mean().item<double>();
}

}  // namespace

KernelDistance kernel_distance(const at::Tensor& generated, const at::Tensor& reference,
                               const KernelDistanceOptions& options) {
  if (options.subsets < 1) throw usage_error("kernel distance: subsets must be at least 1, is ", options.subsets);
  if (options.subset_size < 2)
    throw usage_error("kernel distance: subset size must be at least 2, is ", options.subset_size);
  check_side(generated, "generated", options.subset_size);
  check_side(reference, "reference", options.subset_size);
  if (generated.size(1) != reference.size(1)) {
    throw input_error("kernel distance: generated features ", sizes_text(generated), " and reference features ",
                      sizes_text(reference), " differ in width");
  }
  const at::Tensor all_x = generated.to(at::kDouble), all_y = reference.to(at::kDouble);
  const auto pick = [&](const at::Tensor& all, std::int64_t subset, Side side) {
    const Stream stream(options.seed, Purpose::metric_split, static_cast<std::uint64_t>(subset), side);
    return all.index_select(0, draw(all.size(0), options.subset_size, stream));
  };
  std::vector<double> values;
  for (std::int64_t s = 0; s < options.subsets; ++s) {
    values.push_back(squared_mmd(pick(all_x, s, kGenerated), pick(all_y, s, kReference)));
  }
  const double n = static_cast<double>(options.subsets);
  const double mean = std::accumulate(values.begin(), values.end(), 0.0) / n;
  double squares = 0;
  for (const double value : values) squares += (value - mean) * (value - mean);
  return {mean, std::sqrt(squares / n), options.subsets, options.subset_size};
}

}  // namespace laptopdiff::metrics
