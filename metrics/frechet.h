// Frechet distance between two sets of features, each taken as a Gaussian (the D of FID and FDD).
//
//   |mu1 - mu2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2))
//
// Source: Heusel et al., "GANs trained by a two time-scale update rule", NeurIPS'17, eq. 6. Letters: N samples, D
// width.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <vector>

namespace laptopdiff::metrics {

// Mean and covariance of features that come in parts. Sums are kept in double about a running mean (Chan, Golub and
// LeVeque, "Updating formulae and a pairwise algorithm for computing sample variances", 1979), so neither the size of a
// part nor a large common offset costs accuracy.
class FeatureStatistics {
 public:
  // `name` says whose features these are in errors: "generated", "reference".
  explicit FeatureStatistics(std::string name) : name_(std::move(name)) {}

  // Features [n, D] of any float type. Throws Error(non_finite) naming the side and the row of a NaN or Inf, and
  // Error(bad_input) where D differs from earlier parts.
  void add(const at::Tensor& features);

  std::int64_t count() const { return count_; }
  std::int64_t width() const { return mean_.defined() ? mean_.size(0) : 0; }
  const std::string& name() const { return name_; }
  // f64 [D], and f64 [D, D] with N - 1. Throw Error(bad_input) for fewer than 2 samples.
  at::Tensor mean() const;
  at::Tensor covariance() const;

 private:
  void need_two() const;

  std::string name_;
  std::int64_t count_ = 0;
  at::Tensor mean_, scatter_;  // scatter_: sum of (x - mean)(x - mean)'
};

struct FrechetDistance {
  double value = 0;                   // mean_term + covariance_term
  double mean_term = 0;               // |mu1 - mu2|^2
  double covariance_term = 0;         // tr(S1 + S2 - 2 (S1 S2)^(1/2))
  std::vector<std::string> warnings;  // a side with N <= D has a singular covariance
};

// Throws Error(bad_input) for fewer than 2 samples on a side or different widths.
FrechetDistance frechet_distance(const FeatureStatistics& one, const FeatureStatistics& other);

// The same from means f64 [D] and covariances f64 [D, D]. With S1 = Q L Q', the trace of the square root is the sum of
// the roots of the eigenvalues of the symmetric L^(1/2) Q' S2 Q L^(1/2): no complex numbers, no added diagonal.
FrechetDistance frechet_distance(const at::Tensor& mean1, const at::Tensor& covariance1, const at::Tensor& mean2,
                                 const at::Tensor& covariance2);

}  // namespace laptopdiff::metrics
