#include "pruning/solvers/surrogate.h"

#include <Eigen/Dense>
#include <cmath>

namespace laptopdiff::pruning {

namespace {

// Strength of the pull of every weight to 0, against squared errors of the logarithm.
constexpr double kRidge = 0.3;
constexpr double kLeast = 1e-300;

}  // namespace

double Surrogate::prior(const Mask& removed) const {
  const double loss = problem_.form ? quadratic_loss(problem_, removed) : linear_loss(problem_, removed);
  return std::log(std::max(loss, kLeast));
}

Surrogate::Surrogate(const Problem& problem, const std::vector<MeasuredMask>& measured)
    : problem_(problem), weights_(problem.items.size(), 0.0) {
  const auto n = static_cast<Eigen::Index>(weights_.size());
  // Masks of one budget remove about equally much, so layers are centred: the offset takes what is common to all.
  std::vector<double> residuals;
  std::vector<const Mask*> masks;
  for (const MeasuredMask& mask : measured) {
    if (!std::isfinite(mask.loss) || !(mask.loss > 0)) continue;
    residuals.push_back(std::log(mask.loss) - prior(mask.removed));
    masks.push_back(&mask.removed);
  }
  if (masks.empty()) return;
  const auto count = static_cast<Eigen::Index>(masks.size());
  Eigen::MatrixXd rows(count, n);
  Eigen::VectorXd target(count);
  for (Eigen::Index k = 0; k < count; ++k) {
    target[k] = residuals[static_cast<std::size_t>(k)];
    for (Eigen::Index i = 0; i < n; ++i)
      rows(k, i) = (*masks[static_cast<std::size_t>(k)])[static_cast<std::size_t>(i)];
  }
  const Eigen::RowVectorXd centre = rows.colwise().mean();
  const double level = target.mean();
  rows.rowwise() -= centre;
  const Eigen::MatrixXd normal = rows.transpose() * rows + kRidge * Eigen::MatrixXd::Identity(n, n);
  const Eigen::VectorXd fitted = normal.ldlt().solve(rows.transpose() * (target.array() - level).matrix());
  for (Eigen::Index i = 0; i < n; ++i) weights_[static_cast<std::size_t>(i)] = fitted[i];
  offset_ = level - centre.dot(fitted);
}

double Surrogate::operator()(const Mask& removed) const {
  double log_loss = prior(removed) + offset_;
  for (std::size_t i = 0; i < removed.size(); ++i) log_loss += removed[i] != 0 ? weights_[i] : 0.0;
  return log_loss;
}

}  // namespace laptopdiff::pruning
