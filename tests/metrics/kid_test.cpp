#include "metrics/kid.h"

#include <torch/types.h>

#include <limits>

#include "tests/metrics/tiny_models.h"
#include "tests/support/thrown.h"

#include <doctest/doctest.h>

namespace laptopdiff::metrics {
namespace {

TEST_CASE("two points a side, by hand") {
  // D = 1: k(a, b) = (ab + 1)^3. x = {0, 1}, y = {1, 2}: k_xx off = 1, 1; k_yy off = 27, 27; k_xy = 1, 1, 8, 27.
  const at::Tensor x = torch::tensor({{0.0}, {1.0}}, at::kDouble), y = torch::tensor({{1.0}, {2.0}}, at::kDouble);
  const KernelDistance distance = kernel_distance(x, y, {0, 4, 2});
  CHECK(distance.mean == doctest::Approx((2.0 + 54.0) / 2 - 2 * 37.0 / 4));
  CHECK(distance.standard_deviation == doctest::Approx(0));
  CHECK(distance.subsets == 4);
  CHECK(distance.subset_size == 2);
}

TEST_CASE("draws from one distribution are near zero, a shift is not") {
  const at::Tensor x = test::noise_features(400, 8, 1), y = test::noise_features(500, 8, 2);
  const KernelDistanceOptions options{7, 20, 200};
  const KernelDistance same = kernel_distance(x, y, options);
  CHECK(std::abs(same.mean) < 3 * same.standard_deviation);
  CHECK(kernel_distance(x, y + 0.5, options).mean > 10 * std::abs(same.mean));
}

TEST_CASE("a seed fixes the subsets") {
  const at::Tensor x = test::noise_features(50, 4, 1), y = test::noise_features(60, 4, 2);
  CHECK(kernel_distance(x, y, {7, 5, 20}).mean == kernel_distance(x, y, {7, 5, 20}).mean);
  CHECK(kernel_distance(x, y, {7, 5, 20}).mean != kernel_distance(x, y, {8, 5, 20}).mean);
}

TEST_CASE("what cannot be measured says so") {
  const at::Tensor x = test::noise_features(5, 3, 1);
  SUBCASE("too few samples") {
    const auto thrown = test::thrown_by([&] { kernel_distance(test::noise_features(9, 3, 1), x, {0, 1, 6}); });
    CHECK(thrown.code == runtime::ExitCode::bad_input);
    CHECK(thrown.says("5 reference samples, a subset takes 6"));
  }
  SUBCASE("different widths") {
    CHECK(test::thrown_by([&] {
            kernel_distance(x, test::noise_features(5, 4, 1), {0, 1, 3});
          }).says("[5, 3] and reference features [5, 4]"));
  }
  SUBCASE("Inf") {
    at::Tensor bad = x.clone();
    bad[0][0] = std::numeric_limits<double>::infinity();
    const auto thrown = test::thrown_by([&] { kernel_distance(bad, x, {0, 1, 3}); });
    CHECK(thrown.code == runtime::ExitCode::non_finite);
    CHECK(thrown.says("generated features hold NaN or Inf"));
  }
  SUBCASE("no subsets") {
    const auto thrown = test::thrown_by([&] { kernel_distance(x, x, {0, 0, 3}); });
    CHECK(thrown.code == runtime::ExitCode::usage);
    CHECK(thrown.says("subsets must be at least 1, is 0"));
  }
  SUBCASE("a subset of one") {
    CHECK(test::thrown_by([&] { kernel_distance(x, x, {0, 1, 1}); }).says("subset size must be at least 2, is 1"));
  }
}

}  // namespace
}  // namespace laptopdiff::metrics
