// Kernel distance between two sets of features (KID): an unbiased MMD^2 with a cubic kernel, over random subsets.
//
// k(a, b) = (a'b / D + 1)^3. Source: Binkowski et al., "Demystifying MMD GANs", ICLR'18. Unlike the Frechet distance it
// has no bias in the number of samples, so it may be slightly negative.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace laptopdiff::metrics {

struct KernelDistanceOptions {
  std::uint64_t seed = 0;
  std::int64_t subsets = 100;
  std::int64_t subset_size = 1000;
};

struct KernelDistance {
  double mean = 0, standard_deviation = 0;  // over subsets; the population's deviation, as torch-fidelity reports it
  std::int64_t subsets = 0, subset_size = 0;
};

// Features [N, D] and [M, D]. Subset s draws without replacement from Stream(seed, Purpose::metric_split, s, side).
// Throws Error(bad_input) where a set has fewer samples than a subset or widths differ, Error(usage) for fewer than 1
// subset or a subset below 2, Error(non_finite) where a feature is NaN or Inf.
KernelDistance kernel_distance(const at::Tensor& generated, const at::Tensor& reference,
                               const KernelDistanceOptions& options);

}  // namespace laptopdiff::metrics
