// What the Frechet distance needs of linear algebra. Knows no torch.
#pragma once

#include <cstdint>

namespace laptopdiff::metrics {

// tr((A B)^(1/2)) of two symmetric positive semi-definite matrices [width, width], by the eigenvalues of
// A^(1/2)' B A^(1/2), which is symmetric and has those of A B. Throws Error(non_finite) where they do not converge.
double trace_of_root(const double* a, const double* b, std::int64_t width);

}  // namespace laptopdiff::metrics
