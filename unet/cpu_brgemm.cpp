#include "unet/cpu_brgemm.h"

#include <ATen/native/CPUBlas.h>

namespace laptopdiff::unet {
namespace {

namespace blas = at::native::cpublas;

// LibTorch says that it lacks the kernels by throwing.
template <typename T>
bool runs() {
  constexpr bool kPairs = sizeof(T) == 2;
  const T one[4] = {T(1), T(1), T(1), T(1)};
  float sum[4] = {};
  try {
    blas::brgemm(2, 2, 2, 2, 2, 2, false, one, one, sum, kPairs);
    blas::brgemm_release(kPairs);
  } catch (const c10::Error&) {
    return false;
  }
  return sum[0] == 2 && sum[3] == 2;
}

}  // namespace

bool has_brgemm(at::ScalarType dtype) {
  static const bool floats = runs<float>(), halves = runs<at::BFloat16>();
  return (dtype == at::kFloat && floats) || (dtype == at::kBFloat16 && halves);
}

}  // namespace laptopdiff::unet
