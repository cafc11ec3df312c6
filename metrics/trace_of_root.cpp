#include "metrics/trace_of_root.h"

#include <Eigen/Dense>

#include "runtime/error.h"

namespace laptopdiff::metrics {
namespace {

using Matrix = Eigen::MatrixXd;

Eigen::VectorXd roots(const Eigen::VectorXd& eigenvalues) {
  return eigenvalues.cwiseMax(0.0).cwiseSqrt();  // rounding makes zeros slightly negative
}

}  // namespace

double trace_of_root(const double* a, const double* b, std::int64_t width) {
  // Symmetric, so that row order and Eigen's column order are the same.
  const Eigen::Map<const Matrix> first(a, width, width), second(b, width, width);
  const Eigen::SelfAdjointEigenSolver<Matrix> of_first(first);
  const Matrix half = of_first.eigenvectors() * roots(of_first.eigenvalues()).asDiagonal();  // Q L^(1/2)
  const Matrix product = half.transpose() * second * half;
  const Eigen::SelfAdjointEigenSolver<Matrix> of_product(product, Eigen::EigenvaluesOnly);
  if (of_first.info() != Eigen::Success || of_product.info() != Eigen::Success) {
    throw runtime::non_finite_error("Frechet distance: the eigenvalues of the covariances did not converge");
  }
  return roots(of_product.eigenvalues()).sum();
}

}  // namespace laptopdiff::metrics
