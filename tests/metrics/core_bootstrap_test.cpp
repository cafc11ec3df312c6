#include <cmath>
#include <limits>
#include <vector>

#include "metrics/bootstrap.h"
#include "runtime/random.h"
#include "tests/support/thrown.h"

#include <doctest/doctest.h>

namespace laptopdiff::metrics {
namespace {

std::vector<double> sample(std::size_t count) {
  runtime::Stream stream(1, runtime::Purpose::test);
  std::vector<double> values;
  for (std::size_t i = 0; i < count; ++i) values.push_back(stream.normal());
  return values;
}

TEST_CASE("mean and standard error of 1, 2, 3, 4") {
  const std::vector<double> values{1, 2, 3, 4};
  const MeanEstimate estimate = bootstrap_mean(values, {}, "clip");
  CHECK(estimate.mean == 2.5);
  CHECK(estimate.standard_error == doctest::Approx(std::sqrt(5.0 / 3 / 4)));
  CHECK(estimate.low >= 1);
  CHECK(estimate.high <= 4);
  CHECK(estimate.low < 2.5);
  CHECK(estimate.high > 2.5);
  CHECK(estimate.count == 4);
}

TEST_CASE("the interval of a large sample is the normal one") {
  const std::vector<double> values = sample(2000);
  const MeanEstimate estimate = bootstrap_mean(values, {3, 2000, 0.95}, "clip");
  CHECK(estimate.low == doctest::Approx(estimate.mean - 1.96 * estimate.standard_error).epsilon(0.1));
  CHECK(estimate.high == doctest::Approx(estimate.mean + 1.96 * estimate.standard_error).epsilon(0.1));
  const MeanEstimate narrow = bootstrap_mean(values, {3, 2000, 0.5}, "clip");
  CHECK(narrow.high - narrow.low < 0.5 * (estimate.high - estimate.low));
}

TEST_CASE("a seed fixes the interval") {
  const std::vector<double> values = sample(30);
  CHECK(bootstrap_mean(values, {5, 100, 0.9}, "clip").low == bootstrap_mean(values, {5, 100, 0.9}, "clip").low);
  CHECK(bootstrap_mean(values, {5, 100, 0.9}, "clip").low != bootstrap_mean(values, {6, 100, 0.9}, "clip").low);
}

TEST_CASE("one value alone has no spread") {
  const std::vector<double> one{0.3};
  const MeanEstimate estimate = bootstrap_mean(one, {}, "clip");
  CHECK(estimate.standard_error == 0);
  CHECK(estimate.low == doctest::Approx(0.3));
  CHECK(estimate.high == doctest::Approx(0.3));
}

TEST_CASE("bad samples and options are refused") {
  const std::vector<double> values{1, 2};
  SUBCASE("no values") {
    const auto thrown = test::thrown_by([] { bootstrap_mean({}, {}, "pick"); });
    CHECK(thrown.code == runtime::ExitCode::bad_input);
    CHECK(thrown.says("pick: there are no values to average"));
  }
  SUBCASE("NaN") {
    const std::vector<double> bad{1, std::numeric_limits<double>::quiet_NaN()};
    const auto thrown = test::thrown_by([&] { bootstrap_mean(bad, {}, "pick"); });
    CHECK(thrown.code == runtime::ExitCode::non_finite);
    CHECK(thrown.says("pick: value 1 is nan"));
  }
  SUBCASE("no resamples") {
    const auto thrown = test::thrown_by([&] { bootstrap_mean(values, {0, 0, 0.95}, "pick"); });
    CHECK(thrown.code == runtime::ExitCode::usage);
    CHECK(thrown.says("resamples must be at least 1, is 0"));
  }
  SUBCASE("confidence 1") {
    CHECK(test::thrown_by([&] { bootstrap_mean(values, {0, 10, 1}, "pick"); }).says("between 0 and 1, is 1"));
  }
}

}  // namespace
}  // namespace laptopdiff::metrics
