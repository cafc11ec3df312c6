// Tests that need a GPU: TEST_CASE("on a GPU ..." * doctest::skip(test::no_gpu())). Include before doctest.
#pragma once

#include <torch/cuda.h>

namespace laptopdiff::test {

inline bool no_gpu() { return !torch::cuda::is_available(); }

}  // namespace laptopdiff::test
