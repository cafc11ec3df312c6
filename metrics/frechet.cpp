#include "metrics/frechet.h"

#include <torch/types.h>

#include <algorithm>

#include "metrics/trace_of_root.h"
#include "runtime/error.h"
#include "runtime/tensors.h"

namespace laptopdiff::metrics {
namespace {

using namespace runtime;

void check_finite(const at::Tensor& features, std::int64_t before, const std::string& name) {
  const at::Tensor bad = (~at::isfinite(features).all(1)).nonzero();
  if (bad.numel() == 0) return;
  throw non_finite_error(name, " features: ", bad.size(0), " rows hold NaN or Inf, the first of them row ",
                         before + bad[0][0].item<std::int64_t>());
}

double root_trace(const at::Tensor& covariance1, const at::Tensor& covariance2) {
  const at::Tensor first = covariance1.contiguous(), second = covariance2.contiguous();
  return trace_of_root(first.const_data_ptr<double>(), second.const_data_ptr<double>(), first.size(0));
}

void warn_if_singular(const FeatureStatistics& side, std::vector<std::string>& warnings) {
  if (side.count() > side.width()) return;
  warnings.push_back(cat("the ", side.name(), " covariance is singular: ", side.count(), " samples for ", side.width(),
                         " features; compare only values from equally many samples"));
}

}  // namespace

void FeatureStatistics::add(const at::Tensor& features) {
  TORCH_CHECK(features.dim() == 2, "FeatureStatistics: expected [N, D], got ", features.dim(), " dimensions");
  const std::int64_t added = features.size(0);
  if (added == 0) return;
  if (mean_.defined() && features.size(1) != width()) {
    throw input_error(name_, " features: width ", features.size(1), " after width ", width());
  }
  const at::Tensor x = features.detach().to(at::kCPU).to(at::kDouble);
  check_finite(x, count_, name_);
  if (!mean_.defined()) {
    mean_ = at::zeros({x.size(1)}, at::kDouble);
    scatter_ = at::zeros({x.size(1), x.size(1)}, at::kDouble);
  }
  const at::Tensor mean = x.mean(0), centered = x - mean, step = mean - mean_;
  const double total = static_cast<double>(count_ + added);
  const double share = static_cast<double>(added) / total;
  scatter_ = scatter_ + centered.t().mm(centered) + at::outer(step, step) * (static_cast<double>(count_) * share);
  mean_ = mean_ + step * share;
  count_ += added;
}

void FeatureStatistics::need_two() const {
  if (count_ < 2) throw input_error(name_, " features: a covariance needs at least 2 samples, there are ", count_);
}

at::Tensor FeatureStatistics::mean() const {
  need_two();
  return mean_;
}

at::Tensor FeatureStatistics::covariance() const {
  need_two();
  return scatter_ / static_cast<double>(count_ - 1);
}

FrechetDistance frechet_distance(const FeatureStatistics& one, const FeatureStatistics& other) {
  const at::Tensor mean1 = one.mean(), mean2 = other.mean();
  if (one.width() != other.width()) {
    throw input_error("Frechet distance: ", one.name(), " features have width ", one.width(), ", ", other.name(),
                      " features ", other.width());
  }
  FrechetDistance distance = frechet_distance(mean1, one.covariance(), mean2, other.covariance());
  warn_if_singular(one, distance.warnings);
  warn_if_singular(other, distance.warnings);
  return distance;
}

FrechetDistance frechet_distance(const at::Tensor& mean1, const at::Tensor& covariance1, const at::Tensor& mean2,
                                 const at::Tensor& covariance2) {
  const auto square = [](const at::Tensor& mean, const at::Tensor& covariance) {
    return mean.dim() == 1 && covariance.dim() == 2 && covariance.size(0) == mean.size(0) &&
           covariance.size(1) == mean.size(0);
  };
  if (!square(mean1, covariance1) || !square(mean2, covariance2) || mean1.sizes() != mean2.sizes()) {
    throw input_error("Frechet distance: means ", sizes_text(mean1), " and ", sizes_text(mean2),
                      " do not fit covariances ", sizes_text(covariance1), " and ", sizes_text(covariance2));
  }
  TORCH_CHECK(covariance1.scalar_type() == at::kDouble && covariance2.scalar_type() == at::kDouble,
              "frechet_distance: covariances must be f64");
  FrechetDistance distance;
  distance.mean_term = (mean1 - mean2).square().sum().item<double>();
  const double traces = (covariance1.trace() + covariance2.trace()).item<double>();
  // Never negative but for rounding: it is itself a squared (Bures) distance.
  distance.covariance_term = std::max(traces - 2 * root_trace(covariance1, covariance2), 0.0);
  distance.value = distance.mean_term + distance.covariance_term;
  return distance;
}

}  // namespace laptopdiff::metrics
