#include <cmath>

#include "pruning/curve.h"
#include "pruning/solve.h"
#include "runtime/error.h"
#include "tests/pruning/random_problems.h"
#include "tests/support/thrown.h"

#include <doctest/doctest.h>

using namespace laptopdiff;
using namespace laptopdiff::pruning;

TEST_CASE("the knapsack's curve is the knapsack at every share") {
  RandomShape shape;
  shape.least_items = shape.most_items = 11;
  for (std::uint64_t seed = 0; seed < 10; ++seed) {
    const Problem problem = random_problem(shape, seed);
    const Curve curve = knapsack_curve_points(problem);
    REQUIRE(curve.points.size() == curve.choices);
    CHECK(curve.points.front().kept == doctest::Approx(1));
    const double total = problem.budgets[0].total;
    for (const CurvePoint& point : curve.points) {
      Problem at = problem;
      at.budgets[0].must_free = (1 - point.kept) * total;
      const Solution solution = solve_by_name("knapsack", at);
      CHECK(solution.removed == point.removed);
      CHECK(solution.loss == point.loss);
    }
  }
}

TEST_CASE("a long curve is thinned to equally spaced shares that rise in loss") {
  const Curve curve = knapsack_curve_points(sdxl_problem(1, 0.5));
  CHECK(curve.choices > kMostPoints);
  CHECK(curve.points.size() <= kMostPoints);
  CHECK(curve.points.size() > kMostPoints / 2);
  for (std::size_t i = 1; i < curve.points.size(); ++i) {
    CHECK(curve.points[i].kept < curve.points[i - 1].kept);
    CHECK(curve.points[i].loss >= curve.points[i - 1].loss);
  }
}

TEST_CASE("a long curve has no points of shares between which there is no choice") {
  // Small items of 1, 2, 4, ... and one that frees a million: nothing lies between them all and it.
  Problem problem;
  for (int i = 0; i < 11; ++i) problem.items.push_back({"small", std::exp2(i), {std::exp2(i)}, {}});
  problem.items.push_back({"large", 1e6, {1e6}, {}});
  problem.budgets.push_back({"params", 0, 1e6 + 2047});
  const Curve curve = knapsack_curve_points(problem);
  CHECK(curve.choices == 4096);
  CHECK(curve.points.size() < 10);
  CHECK(curve.points.back().kept == doctest::Approx(0));
}

TEST_CASE("other solvers' curves hold the shares that were asked for, as far as they can be reached") {
  Problem problem = random_problem({}, 3);
  const auto solve = [](const Problem& p) { return solve_by_name("greedy", p); };
  const Curve curve = curve_at(problem, {0.9, -0.5, 0.5, 0.0}, solve);
  CHECK(curve.unreachable == std::vector{-0.5});
  REQUIRE(curve.points.size() == 3);
  for (std::size_t i = 0; i < 3; ++i) CHECK(curve.points[i].kept <= std::vector{0.9, 0.5, 0.0}[i] + 1e-9);
  const runtime::Json json = curve_json(curve, problem, "greedy", "sum of scores");
  CHECK(json["format"] == "laptopdiff.curve/1");
  CHECK(json["points"][1]["removed"].size() > 0);
  CHECK(test::thrown_by([&] { curve_at(problem, {-1}, solve); }).code == runtime::ExitCode::usage);
  const auto dead_end = [](const Problem&) -> Solution { throw runtime::usage_error("no further layer helps"); };
  CHECK(test::thrown_by([&] { curve_at(problem, {0.9, 0.5}, dead_end); }).says("no further layer helps"));
  const auto second_fails = [&, solved = 0](const Problem& p) mutable {
    return solved++ == 0 ? solve(p) : dead_end(p);
  };
  CHECK(test::thrown_by([&] { curve_at(problem, {0.9, 0.5}, second_fails); }).says("no further layer helps"));
  problem.budgets.push_back(problem.budgets[0]);
  for (Item& item : problem.items) item.cost.push_back(item.cost[0]);
  CHECK(test::thrown_by([&] { knapsack_curve_points(problem); }).says("over one budget"));
}
