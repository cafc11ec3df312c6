// The mean of a sample with a percentile bootstrap interval (Efron, "Bootstrap methods", 1979).
#pragma once

#include <cstdint>
#include <span>
#include <string>

namespace laptopdiff::metrics {

// A mean, its standard error s / sqrt(n), and the interval that holds `confidence` of the resampled means.
struct MeanEstimate {
  double mean = 0, standard_error = 0, low = 0, high = 0, confidence = 0;
  std::int64_t count = 0, resamples = 0;
};

struct BootstrapOptions {
  std::uint64_t seed = 0;
  std::int64_t resamples = 1000;
  double confidence = 0.95;
};

// Resample r draws from Stream(seed, Purpose::bootstrap, r), so results depend on nothing but values and options. The
// bounds are order statistics with linear interpolation. One value alone has standard error 0 and an empty interval.
// Throws Error(bad_input) for no values, Error(non_finite) naming `what` and the index of a NaN or Inf, Error(usage)
// for bad options.
MeanEstimate bootstrap_mean(std::span<const double> values, const BootstrapOptions& options, const std::string& what);

}  // namespace laptopdiff::metrics
