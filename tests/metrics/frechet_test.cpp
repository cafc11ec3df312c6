#include "metrics/frechet.h"

#include <torch/types.h>

#include <cmath>
#include <limits>

#include "tests/metrics/tiny_models.h"
#include "tests/support/thrown.h"

#include <doctest/doctest.h>

namespace laptopdiff::metrics {
namespace {

FeatureStatistics statistics(const at::Tensor& features, const std::string& name = "generated") {
  FeatureStatistics statistics(name);
  statistics.add(features);
  return statistics;
}

double distance(const at::Tensor& x, const at::Tensor& y) {
  return frechet_distance(statistics(x), statistics(y, "reference")).value;
}

TEST_CASE("mean and covariance of three points, by hand") {
  const auto points = statistics(torch::tensor({{0.0, 0.0}, {2.0, 0.0}, {1.0, 3.0}}, at::kDouble));
  CHECK(at::allclose(points.mean(), torch::tensor({1.0, 1.0}, at::kDouble)));
  CHECK(at::allclose(points.covariance(), torch::tensor({{1.0, 0.0}, {0.0, 3.0}}, at::kDouble)));
  CHECK(points.count() == 3);
  CHECK(points.width() == 2);
}

TEST_CASE("parts give what the whole gives, also far from zero") {
  const at::Tensor features = test::noise_features(101, 7, 1) + 1e6;
  FeatureStatistics parts("generated");
  for (const at::Tensor& part : features.split(13)) parts.add(part);
  parts.add(features.narrow(0, 0, 0));  // an empty part changes nothing
  const FeatureStatistics whole = statistics(features);
  CHECK(parts.count() == 101);
  CHECK(at::allclose(parts.mean(), whole.mean(), 1e-14, 0));
  CHECK(at::allclose(parts.covariance(), whole.covariance(), 1e-8, 1e-9));
  CHECK(at::allclose(parts.covariance(), at::cov(features.t()), 1e-8, 1e-9));
}

TEST_CASE("a set has no distance to itself") {
  CHECK(distance(test::noise_features(50, 6, 2), test::noise_features(50, 6, 2)) == doctest::Approx(0).epsilon(1e-10));
  // Singular covariances: eigenvalues near 1e-16 leave roots near 1e-8.
  CHECK(distance(test::noise_features(10, 30, 2), test::noise_features(10, 30, 2)) < 1e-6);
}

TEST_CASE("a shift by s costs |s|^2 and nothing else") {
  const at::Tensor x = test::noise_features(200, 5, 3);
  const at::Tensor shift = torch::tensor({1.0, -2.0, 0.0, 0.5, 3.0}, at::kDouble);
  const FrechetDistance moved = frechet_distance(statistics(x), statistics(x + shift));
  CHECK(moved.mean_term == doctest::Approx(14.25));
  CHECK(moved.covariance_term < 1e-9);
}

TEST_CASE("Gaussians with known answers") {
  const auto gaussians = [](std::vector<double> mean1, const at::Tensor& s1, std::vector<double> mean2,
                            const at::Tensor& s2) {
    return frechet_distance(torch::tensor(mean1, at::kDouble), s1, torch::tensor(mean2, at::kDouble), s2);
  };
  SUBCASE("one dimension: (m1 - m2)^2 + (sd1 - sd2)^2") {
    const auto d = gaussians({1}, at::full({1, 1}, 4.0, at::kDouble), {4}, at::full({1, 1}, 25.0, at::kDouble));
    CHECK(d.value == doctest::Approx(9 + 9));
  }
  SUBCASE("covariances that commute: the sum of (sqrt l1 - sqrt l2)^2") {
    const at::Tensor q = std::get<0>(at::linalg_qr(test::noise_features(4, 4, 4)));
    const at::Tensor l1 = torch::tensor({1.0, 4.0, 9.0, 0.0}, at::kDouble),
                     l2 = torch::tensor({16.0, 4.0, 0.0, 1.0}, at::kDouble);
    const auto d = gaussians({0, 0, 0, 0}, q.mm(at::diag(l1)).mm(q.t()), {0, 0, 0, 0}, q.mm(at::diag(l2)).mm(q.t()));
    CHECK(d.value == doctest::Approx(9 + 0 + 9 + 1));
  }
  SUBCASE("covariances that do not commute") {
    // A = diag(1, 4), B = [[2, 1], [1, 2]]: AB has trace 10 and determinant 12, so tr (AB)^(1/2) = sqrt(10 + 2 sqrt
    // 12).
    const at::Tensor a = torch::tensor({{1.0, 0.0}, {0.0, 4.0}}, at::kDouble);
    const at::Tensor b = torch::tensor({{2.0, 1.0}, {1.0, 2.0}}, at::kDouble);
    CHECK(gaussians({0, 0}, a, {0, 0}, b).value == doctest::Approx(9 - 2 * std::sqrt(10 + 2 * std::sqrt(12.0))));
  }
}

TEST_CASE("the distance is symmetric, and turning both sets changes nothing") {
  const at::Tensor x = test::noise_features(80, 6, 5),
                   y = test::noise_features(90, 6, 6).mm(test::noise_features(6, 6, 7)) + 0.3;
  const at::Tensor turn = std::get<0>(at::linalg_qr(test::noise_features(6, 6, 8)));
  CHECK(distance(x, y) == doctest::Approx(distance(y, x)));
  CHECK(distance(x.mm(turn), y.mm(turn)) == doctest::Approx(distance(x, y)));
  CHECK(distance(3 * x, 3 * y) == doctest::Approx(9 * distance(x, y)));
}

TEST_CASE("a side with no more samples than features is warned about, by name") {
  const FrechetDistance few = frechet_distance(statistics(test::noise_features(6, 6, 9)),
                                               statistics(test::noise_features(7, 6, 10), "reference"));
  REQUIRE(few.warnings.size() == 1);
  CHECK(few.warnings[0].find("the generated covariance is singular: 6 samples for 6 features") != std::string::npos);
}

TEST_CASE("what has no covariance says so") {
  SUBCASE("one sample") {
    const auto thrown = test::thrown_by([] { statistics(test::noise_features(1, 3, 1), "reference").covariance(); });
    CHECK(thrown.code == runtime::ExitCode::bad_input);
    CHECK(thrown.says("reference features: a covariance needs at least 2 samples, there are 1"));
  }
  SUBCASE("no sample") {
    CHECK(
        test::thrown_by([] { FeatureStatistics("generated").mean(); }).says("generated features: a covariance needs"));
  }
  SUBCASE("NaN, in a later part") {
    FeatureStatistics side = statistics(test::noise_features(5, 3, 1), "reference");
    at::Tensor bad = test::noise_features(4, 3, 2);
    bad[2][1] = std::numeric_limits<double>::quiet_NaN();
    const auto thrown = test::thrown_by([&] { side.add(bad); });
    CHECK(thrown.code == runtime::ExitCode::non_finite);
    CHECK(thrown.says("reference features: 1 rows hold NaN or Inf, the first of them row 7"));
    CHECK(side.count() == 5);
  }
  SUBCASE("another width later") {
    FeatureStatistics side = statistics(test::noise_features(5, 3, 1));
    CHECK(test::thrown_by([&] {
            side.add(test::noise_features(5, 4, 1));
          }).says("generated features: width 4 after width 3"));
  }
  SUBCASE("different widths") {
    const auto thrown = test::thrown_by([] { distance(test::noise_features(5, 3, 1), test::noise_features(5, 4, 1)); });
    CHECK(thrown.says("generated features have width 3, reference features 4"));
  }
  SUBCASE("a mean that does not fit") {
    const at::Tensor one = at::eye(3, at::kDouble), mean = at::zeros({2}, at::kDouble);
    CHECK(test::thrown_by([&] {
            frechet_distance(mean, one, mean, one);
          }).says("do not fit covariances [3, 3] and [3, 3]"));
  }
}

}  // namespace
}  // namespace laptopdiff::metrics
