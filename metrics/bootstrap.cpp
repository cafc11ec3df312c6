#include "metrics/bootstrap.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "runtime/error.h"
#include "runtime/random.h"

namespace laptopdiff::metrics {
namespace {

using namespace runtime;

void check(std::span<const double> values, const BootstrapOptions& options, const std::string& what) {
  if (options.resamples < 1) throw usage_error("bootstrap: resamples must be at least 1, is ", options.resamples);
  if (!(options.confidence > 0 && options.confidence < 1)) {
    throw usage_error("bootstrap: confidence must lie between 0 and 1, is ", options.confidence);
  }
  if (values.empty()) throw input_error(what, ": there are no values to average");
  for (std::size_t i = 0; i < values.size(); ++i) {
    if (!std::isfinite(values[i])) throw non_finite_error(what, ": value ", i, " is ", values[i]);
  }
}

double mean_of(std::span<const double> values) {
  return std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
}

double standard_error(std::span<const double> values, double mean) {
  if (values.size() < 2) return 0;
  double squares = 0;
  for (const double value : values) squares += (value - mean) * (value - mean);
  const auto n = static_cast<double>(values.size());
  return std::sqrt(squares / (n - 1) / n);
}

double resampled_mean(std::span<const double> values, std::uint64_t seed, std::uint64_t resample) {
  Stream stream(seed, Purpose::bootstrap, resample);
  double sum = 0;
  for (std::size_t i = 0; i < values.size(); ++i) sum += values[stream.below(values.size())];
  return sum / static_cast<double>(values.size());
}

double quantile(const std::vector<double>& sorted, double q) {
  const double position = q * static_cast<double>(sorted.size() - 1);
  const auto below = static_cast<std::size_t>(position);
  const std::size_t above = std::min(below + 1, sorted.size() - 1);
  return sorted[below] + (position - static_cast<double>(below)) * (sorted[above] - sorted[below]);
}

}  // namespace

MeanEstimate bootstrap_mean(std::span<const double> values, const BootstrapOptions& options, const std::string& what) {
  check(values, options, what);
  MeanEstimate estimate;
  estimate.mean = mean_of(values);
  estimate.standard_error = standard_error(values, estimate.mean);
  estimate.count = static_cast<std::int64_t>(values.size());
  estimate.resamples = options.resamples;
  estimate.confidence = options.confidence;
  std::vector<double> means;
  for (std::int64_t r = 0; r < options.resamples; ++r) {
    means.push_back(resampled_mean(values, options.seed, static_cast<std::uint64_t>(r)));
  }
  std::sort(means.begin(), means.end());
  estimate.low = quantile(means, (1 - options.confidence) / 2);
  estimate.high = quantile(means, (1 + options.confidence) / 2);
  return estimate;
}

}  // namespace laptopdiff::metrics
