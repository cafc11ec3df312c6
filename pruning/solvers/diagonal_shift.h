// The diagonal d that makes Q - diag(d) positive semi-definite and is as large as that allows.
#pragma once

#include <span>
#include <vector>

namespace laptopdiff::pruning {

// Nearly maximises sum w_i d_i over Q - diag(d) >= 0, by Newton steps along the logarithmic barrier's path; the result
// is strictly feasible. A semidefinite program in the diagonal only (Poljak, Rendl and Wolkowicz, "A recipe for
// semidefinite relaxation for (0,1)-quadratic programming", 1995).
// Q [n, n] row-major with `stride` values a row, symmetric; weights [n], > 0. `start`, where not empty, must be
// strictly feasible, such as the tail of the answer for a larger matrix that ends in this one.
std::vector<double> largest_shift(std::span<const double> q, int n, int stride, std::span<const double> weights,
                                  std::span<const double> start);

}  // namespace laptopdiff::pruning
