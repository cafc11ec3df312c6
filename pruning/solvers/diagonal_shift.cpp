#include "pruning/solvers/diagonal_shift.h"

#include <Eigen/Dense>
#include <algorithm>
#include <cmath>
#include <limits>

namespace laptopdiff::pruning {

namespace {

using Eigen::MatrixXd;
using Eigen::VectorXd;

constexpr double kFinalGap = 3e-4;  // of the objective's scale; what is left of the barrier
constexpr int kNewtonSteps = 8;     // a barrier weight; the path only has to be followed roughly

class Barrier {
 public:
  Barrier(MatrixXd q, VectorXd weights) : q_(std::move(q)), weights_(std::move(weights)) {}

  // Half of log det, or nothing where Q - diag(d) is not positive definite.
  double value(const VectorXd& d, double mu) {
    matrix_ = q_;
    matrix_.diagonal() -= d;
    cholesky_.compute(matrix_);
    if (cholesky_.info() != Eigen::Success) return -std::numeric_limits<double>::infinity();
    const auto diagonal = cholesky_.matrixLLT().diagonal();
    if (!(diagonal.minCoeff() > 1e-7)) return -std::numeric_limits<double>::infinity();
    return weights_.dot(d) + 2 * mu * diagonal.array().log().sum();
  }

  // One damped Newton step; false once there is nothing to gain.
  bool step(VectorXd& d, double mu) {
    const double now = value(d, mu);
    const MatrixXd inverse = cholesky_.solve(MatrixXd::Identity(q_.rows(), q_.cols()));
    const VectorXd gradient = weights_ - mu * inverse.diagonal();
    const MatrixXd hessian = mu * inverse.cwiseProduct(inverse);
    const VectorXd direction = hessian.llt().solve(gradient);
    const double slope = gradient.dot(direction);
    if (!(slope > 1e-3 * mu)) return false;
    for (double length = 1; length > 1e-6; length /= 2) {
      const VectorXd trial = d + length * direction;
      if (value(trial, mu) >= now + 1e-4 * length * slope) {
        d = trial;
        return true;
      }
    }
    return false;
  }

 private:
  MatrixXd q_, matrix_;
  VectorXd weights_;
  Eigen::LLT<MatrixXd> cholesky_;
};

}  // namespace

std::vector<double> largest_shift(std::span<const double> q, int n, int stride, std::span<const double> weights,
                                  std::span<const double> start) {
  using Rows = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
  MatrixXd matrix = Eigen::Map<const Rows, 0, Eigen::OuterStride<>>(q.data(), n, n, Eigen::OuterStride<>(stride));
  // Scores span orders of magnitude; a unit diagonal keeps the Newton systems well conditioned.
  const double most = std::max(matrix.diagonal().cwiseAbs().maxCoeff(), std::numeric_limits<double>::min());
  const VectorXd scale = matrix.diagonal().cwiseAbs().cwiseMax(1e-9 * most).cwiseSqrt();
  matrix = scale.cwiseInverse().asDiagonal() * matrix * scale.cwiseInverse().asDiagonal();
  VectorXd w = Eigen::Map<const VectorXd>(weights.data(), n).cwiseProduct(scale.cwiseAbs2());
  w = w.cwiseMax(1e-4 * w.maxCoeff());
  w /= w.sum();

  VectorXd d(n);
  double mu = 1.0 / n;
  if (start.empty()) {
    const Eigen::SelfAdjointEigenSolver<MatrixXd> eigen(matrix, Eigen::EigenvaluesOnly);
    d.setConstant(eigen.eigenvalues()[0] - 0.1);
  } else {
    d = Eigen::Map<const VectorXd>(start.data(), n).cwiseQuotient(scale.cwiseAbs2());
    mu *= 16 * kFinalGap;  // close to the path's end already
  }
  Barrier barrier(std::move(matrix), w);
  for (; mu > kFinalGap / n; mu /= 4) {
    for (int i = 0; i < kNewtonSteps && barrier.step(d, mu); ++i) {
    }
  }
  d = d.cwiseProduct(scale.cwiseAbs2());
  return {d.data(), d.data() + n};
}

}  // namespace laptopdiff::pruning
