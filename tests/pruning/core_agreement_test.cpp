#include <cmath>

#include "pruning/solvers/agreement.h"

#include <doctest/doctest.h>

using namespace laptopdiff;

TEST_CASE("Spearman is 1 in order, -1 against it, and gives ties their mean rank") {
  CHECK(pruning::spearman({1, 2, 3, 4}, {10, 20, 30, 100}) == doctest::Approx(1));
  CHECK(pruning::spearman({1, 2, 3, 4}, {4, 3, 2, 1}) == doctest::Approx(-1));
  // Ranks 0, 1.5, 1.5, 3 against 0, 1, 2, 3: 4.5 / sqrt(4.5 * 5).
  CHECK(pruning::spearman({1, 2, 2, 3}, {1, 2, 3, 4}) == doctest::Approx(4.5 / std::sqrt(4.5 * 5)));
  CHECK(std::isnan(pruning::spearman({1}, {1})));
  CHECK(std::isnan(pruning::spearman({2, 2, 2}, {1, 2, 3})));
}

TEST_CASE("agreement tells rank, scale and how many predictions are near") {
  const pruning::Agreement a = pruning::agreement({1, 2, 4, 8}, {2, 4, 8, 9});
  CHECK(a.rows == 4);
  CHECK(a.spearman == doctest::Approx(1));
  CHECK(a.ratio_median == doctest::Approx(2));
  CHECK(a.ratio_min == doctest::Approx(9.0 / 8));
  CHECK(a.ratio_max == doctest::Approx(2));
  CHECK(a.within_quarter == doctest::Approx(0.25));
  CHECK(pruning::agreement({3, 5, 9}, {3, 5, 9}).r2_log == doctest::Approx(1));
  CHECK(std::isnan(pruning::agreement({}, {}).ratio_median));
  CHECK(std::isnan(pruning::agreement({}, {}).within_quarter));
  // A prediction below 0 has no ratio, but is a miss all the same.
  CHECK(pruning::agreement({-1, 2, 4}, {1, 2, 8}).within_quarter == doctest::Approx(1.0 / 3));
  CHECK(pruning::agreement({-1}, {1}).within_quarter == 0);
}

TEST_CASE("a correction finds the power law that is there") {
  std::vector<std::vector<double>> predictions;
  std::vector<double> truth;
  for (int i = 1; i <= 40; ++i) {
    const double first = 0.01 * i, second = 0.01 * (1 + i * 7 % 13);
    predictions.push_back({first, second});
    truth.push_back(2.5 * std::pow(first, 1.2) * std::pow(second, -0.3));
  }
  const pruning::Correction both = pruning::fit_correction(predictions, truth);
  CHECK(both.masks == 40);
  CHECK(both.coefficients[0] == doctest::Approx(std::log(2.5)).epsilon(0.02));
  CHECK(both.coefficients[1] == doctest::Approx(1.2).epsilon(0.02));
  CHECK(both.coefficients[2] == doctest::Approx(-0.3).epsilon(0.02));
  CHECK(both.apply({0.2, 0.05}) == doctest::Approx(2.5 * std::pow(0.2, 1.2) * std::pow(0.05, -0.3)).epsilon(0.01));
}

TEST_CASE("a correction of few masks is a factor, of none nothing") {
  const pruning::Correction one = pruning::fit_correction({{0.1}}, {0.3});
  CHECK(one.apply({0.1}) == doctest::Approx(0.3).epsilon(0.01));
  CHECK(one.apply({0.2}) == doctest::Approx(0.6).epsilon(0.02));
  const pruning::Correction none = pruning::fit_correction({{-1.0}}, {0.3});
  CHECK(none.masks == 0);
  CHECK(none.apply({0.25}) == doctest::Approx(0.25));
  CHECK(one.apply({-0.5}) == -0.5);  // no logarithm: as it stands
}
