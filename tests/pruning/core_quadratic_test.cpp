#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>
#include <vector>

#include "pruning/solvers/binary_form.h"
#include "pruning/solvers/diagonal_shift.h"
#include "pruning/solvers/knapsack.h"
#include "pruning/solvers/local_search.h"
#include "pruning/solvers/problem.h"
#include "pruning/solvers/quadratic.h"
#include "runtime/error.h"
#include "tests/pruning/random_problems.h"

#include <doctest/doctest.h>

using namespace laptopdiff::pruning;
using laptopdiff::runtime::Error;
using laptopdiff::runtime::ExitCode;

namespace {

std::optional<double> brute_force(const Problem& problem) {
  const BinaryForm form = make_binary_form(problem);
  const int n = static_cast<int>(problem.items.size());
  std::optional<double> best;
  Mask mask(n);
  for (unsigned bits = 0; bits < 1u << n; ++bits) {
    for (int i = 0; i < n; ++i) mask[i] = bits >> i & 1;
    if (!respects_fixed(problem, mask)) continue;
    const auto y = form.variables(mask);
    if (!form.is_feasible(y)) continue;
    const double loss = form.loss(y);
    if (!best || loss < *best) best = loss;
  }
  return best;
}

void check_solution(const Problem& problem, const Solution& solution, double expected) {
  const double scale = std::max(1.0, std::abs(expected));
  CHECK(solution.loss == doctest::Approx(expected).epsilon(1e-8));
  CHECK(solution.loss == quadratic_loss(problem, solution.removed));
  CHECK(solution.bound <= solution.loss);
  CHECK(solution.bound <= expected + 1e-8 * scale);
  CHECK(solution.proven_optimal);
  CHECK(meets(problem, solution.removed));
  CHECK(respects_fixed(problem, solution.removed));
  CHECK(solution.freed == freed_by(problem, solution.removed));
}

}  // namespace

TEST_CASE("quadratic: a hand-worked problem where the sum of losses misleads") {
  // a and b undo each other; c alone looks cheapest.
  Problem problem;
  problem.items = {{"a", 4, {10}, 0}, {"b", 4, {10}, 1}, {"c", 3, {20}, 2}};
  problem.form = QuadraticForm{3, {4, -3, 0, -3, 4, 0, 0, 0, 3}};
  problem.budgets = {{"params", 20, 0}};
  CHECK(solve_knapsack(problem).removed == Mask{0, 0, 1});
  const Solution solution = solve_quadratic(problem);
  CHECK(solution.removed == Mask{1, 1, 0});
  CHECK(solution.loss == 2);  // 4 + 4 - 2 * 3
  CHECK(solution.proven_optimal);
  CHECK(solution.bound == 2);
}

TEST_CASE("quadratic: an emptied group counts the row of `all`") {
  Problem problem;
  problem.items = {{"a", 0, {10}, 0}, {"b", 0, {10}, 1}, {"c", 0, {25}, 2}};
  problem.groups = {{{0, 1}, Item{"shell", 0, {25}, 3}}};
  problem.form = QuadraticForm{4, {1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 9, 0, 0, 0, 0, 4}};
  problem.budgets = {{"params", 21, 0}};
  CHECK(solve_quadratic(problem).removed == Mask{1, 1, 0});
  CHECK(solve_quadratic(problem).loss == 4);
  problem.form->values[15] = 10;  // emptying the shell is now worse than c
  CHECK(solve_quadratic(problem).removed == Mask{0, 0, 1});
}

TEST_CASE("quadratic: equals brute force on random instances") {
  RandomShape shape;
  Kind kind = Kind::gram;
  SUBCASE("no groups") { shape.groups = false; }
  SUBCASE("groups") {}
  SUBCASE("groups and fixed choices") { shape.fixed = true; }
  SUBCASE("measured costs") { shape.whole_costs = false; }
  SUBCASE("two budgets") { shape.budgets = 2; }
  SUBCASE("three budgets, fixed choices") {
    shape.budgets = 3;
    shape.fixed = true;
    shape.whole_costs = false;
  }
  SUBCASE("many zero costs") { shape.ties = true; }
  SUBCASE("a form that is not positive semi-definite") { kind = Kind::indefinite; }
  SUBCASE("no budget, a form that is not positive semi-definite") {
    shape.budgets = 0;
    kind = Kind::indefinite;
  }
  for (std::uint64_t seed = 0; seed < 40; ++seed) {
    CAPTURE(seed);
    Problem problem = random_problem(shape, seed);
    add_form(problem, seed, kind);
    const std::optional<double> expected = brute_force(problem);
    if (!expected) {
      CHECK_THROWS_AS(solve_quadratic(problem), Error);
      continue;
    }
    // Without restarts more is left to the tree.
    check_solution(problem, solve_quadratic(problem, {.restarts = seed % 2 ? 0 : 8}), *expected);
  }
}

TEST_CASE("quadratic: equals brute force at 18 items") {
  RandomShape shape;
  shape.least_items = shape.most_items = 18;
  SUBCASE("no groups") { shape.groups = false; }
  SUBCASE("groups") {}
  for (std::uint64_t seed = 0; seed < 3; ++seed) {
    CAPTURE(seed);
    Problem problem = random_problem(shape, seed);
    add_form(problem, seed);
    check_solution(problem, solve_quadratic(problem, {.restarts = 0}), brute_force(problem).value());
  }
}

TEST_CASE("quadratic: items without a row add their gains") {
  RandomShape shape;
  shape.negative_gains = true;
  for (std::uint64_t seed = 0; seed < 20; ++seed) {
    CAPTURE(seed);
    Problem problem = random_problem(shape, seed);
    add_form(problem, seed);
    for (std::size_t i = 0; i < problem.items.size(); i += 3) problem.items[i].row.reset();
    check_solution(problem, solve_quadratic(problem), brute_force(problem).value());
  }
}

TEST_CASE("quadratic: without interactions it is the knapsack") {
  RandomShape shape;
  for (std::uint64_t seed = 0; seed < 30; ++seed) {
    CAPTURE(seed);
    Problem problem = random_problem(shape, seed);
    give_rows(problem);
    std::vector<double> diagonal;
    for (const Item& item : problem.items) diagonal.push_back(item.gain);
    for (const Group& group : problem.groups) {
      if (group.all) diagonal.push_back(group.all->gain);
    }
    const std::size_t n = diagonal.size();
    problem.form = QuadraticForm{static_cast<int>(n), std::vector<double>(n * n, 0.0)};
    for (std::size_t i = 0; i < n; ++i) problem.form->values[i * n + i] = diagonal[i];
    const Solution solution = solve_quadratic(problem);
    CHECK(solution.loss == doctest::Approx(solve_knapsack(problem).loss));
    CHECK(solution.proven_optimal);
  }
}

TEST_CASE("quadratic: never worse than the knapsack, whatever the limits") {
  for (std::uint64_t seed = 0; seed < 4; ++seed) {
    CAPTURE(seed);
    Problem problem = sdxl_problem(seed, 0.3 + 0.15 * double(seed));
    add_form(problem, seed);
    const double knapsack = quadratic_loss(problem, solve_knapsack(problem).removed);
    for (const QuadraticOptions& options :
         {QuadraticOptions{.restarts = 0, .max_nodes = 0}, QuadraticOptions{.restarts = 1, .max_nodes = 20}}) {
      const Solution solution = solve_quadratic(problem, options);
      CHECK(solution.loss <= knapsack);
      CHECK(solution.bound <= solution.loss);
      CHECK(meets(problem, solution.removed));
      CHECK(std::isinf(solution.bound) == (options.max_nodes == 0));
    }
  }
}

TEST_CASE("quadratic: a tree that is cut short states a true bound, and more nodes never weaken it") {
  RandomShape shape;
  shape.least_items = shape.most_items = 18;
  shape.groups = false;
  shape.ties = true;
  Problem problem = random_problem(shape, 3);
  add_form(problem, 3);
  const Solution best = solve_quadratic(problem);
  REQUIRE(best.proven_optimal);
  double last = -std::numeric_limits<double>::infinity();
  for (std::int64_t nodes : {1, 2, 4, 8, 16, 32}) {
    const Solution solution = solve_quadratic(problem, {.max_nodes = nodes});
    CHECK(solution.bound <= best.loss * (1 + 1e-8));
    CHECK(solution.bound >= last);
    CHECK(solution.loss >= best.loss * (1 - 1e-8));
    last = solution.bound;
  }
}

TEST_CASE("quadratic: the same problem has the same answer") {
  Problem problem = sdxl_problem(7, 0.4);
  add_form(problem, 7);
  const QuadraticOptions options{.restarts = 3, .max_nodes = 300};
  const Solution first = solve_quadratic(problem, options);
  const Solution second = solve_quadratic(problem, options);
  CHECK(first.removed == second.removed);
  CHECK(first.bound == second.bound);
}

TEST_CASE("local search: ends feasible, no worse, where no single flip or swap improves") {
  RandomShape shape;
  shape.least_items = shape.most_items = 14;
  for (std::uint64_t seed = 0; seed < 20; ++seed) {
    CAPTURE(seed);
    Problem problem = random_problem(shape, seed);
    add_form(problem, seed);
    const BinaryForm form = make_binary_form(problem);
    const Mask start = Mask(problem.items.size(), 1);
    Mask end = improve(form, start);
    const double loss = quadratic_loss(problem, end);
    CHECK(loss <= quadratic_loss(problem, start));
    CHECK(meets(problem, end));
    for (std::size_t i = 0; i < end.size(); ++i) {
      for (std::size_t j = i; j < end.size(); ++j) {
        Mask other = end;
        other[i] = !other[i];
        if (j != i) other[j] = !other[j];
        if (j != i && end[i] == end[j]) continue;
        if (meets(problem, other)) REQUIRE(quadratic_loss(problem, other) >= loss - 1e-9);
      }
    }
  }
}

TEST_CASE("binary form: variables and masks carry the same loss, and go back and forth") {
  RandomShape shape;
  shape.fixed = true;
  for (std::uint64_t seed = 0; seed < 30; ++seed) {
    CAPTURE(seed);
    Problem problem = random_problem(shape, seed);
    add_form(problem, seed);
    const BinaryForm form = make_binary_form(problem);
    Draws draws(seed, laptopdiff::runtime::Purpose::test, 5);
    for (int trial = 0; trial < 30; ++trial) {
      Mask mask(problem.items.size());
      for (auto& bit : mask) bit = draws.below(4) > 0;
      for (const Fixed& fixed : problem.fixed) mask[fixed.item] = fixed.decision == Decision::remove;
      const auto y = form.variables(mask);
      CHECK(form.removed(y) == mask);
      CHECK(form.loss(y) == doctest::Approx(quadratic_loss(problem, mask)));
      CHECK(form.is_feasible(y) == meets(problem, mask));
    }
  }
}

TEST_CASE("diagonal shift: takes nearly all of a diagonal, and leaves a matrix positive definite") {
  const std::vector<double> diagonal = {4, 0, 0, 0, 9, 0, 0, 0, 1};
  const std::vector<double> weights = {1, 1, 1};
  const std::vector<double> shift = largest_shift(diagonal, 3, 3, weights, {});
  for (int i = 0; i < 3; ++i) {
    CHECK(shift[i] < diagonal[i * 4]);
    CHECK(shift[i] > 0.98 * diagonal[i * 4]);
  }
  // Two equal rows: what one entry gains the other loses, sqrt((1 - d0)(1 - d1)) >= 1.
  const std::vector<double> twins = {1, 1, 1, 1};
  const std::vector<double> even = largest_shift(twins, 2, 2, std::vector<double>{1, 1}, {});
  CHECK((1 - even[0]) * (1 - even[1]) >= 1);
  CHECK(std::abs(even[0]) < 0.02);
  CHECK(std::abs(even[1]) < 0.02);
}

TEST_CASE("quadratic: refuses what it cannot solve, and says why") {
  Problem problem;
  problem.items = {{"a", 1, {10}, 0}, {"b", 1, {10}, 1}};
  problem.form = QuadraticForm{2, {1, 0, 0, 1}};
  problem.budgets = {{"params", 10, 0}};
  SUBCASE("no form") {
    problem.form.reset();
    CHECK_THROWS_WITH_AS(solve_quadratic(problem), doctest::Contains("needs a Gram matrix"), Error);
  }
  SUBCASE("a form of another size") {
    problem.form->values.pop_back();
    CHECK_THROWS_WITH_AS(solve_quadratic(problem), doctest::Contains("has 3 values, expected 2 x 2"), Error);
  }
  SUBCASE("a row that is not there") {
    problem.items[1].row = 2;
    CHECK_THROWS_WITH_AS(solve_quadratic(problem), doctest::Contains("`b` has row 2"), Error);
  }
  SUBCASE("a shared row") {
    problem.items[1].row = 0;
    CHECK_THROWS_WITH_AS(solve_quadratic(problem), doctest::Contains("`b` and `a` share row 0"), Error);
  }
  SUBCASE("not symmetric") {
    problem.form->values[1] = 0.5;
    CHECK_THROWS_WITH_AS(solve_quadratic(problem), doctest::Contains("not symmetric: [1,0] is 0, [0,1] is 0.5"), Error);
  }
  SUBCASE("not finite") {
    problem.form->values[1] = problem.form->values[2] = std::numeric_limits<double>::quiet_NaN();
    try {
      solve_quadratic(problem);
      FAIL("expected an error");
    } catch (const Error& error) {
      CHECK(error.code() == ExitCode::non_finite);
    }
  }
  SUBCASE("entries whose products overflow") {
    problem.form->values[0] = 1e308;
    CHECK_THROWS_WITH_AS(solve_quadratic(problem), doctest::Contains("an entry of the quadratic form is 1e+308"),
                         Error);
  }
  SUBCASE("an impossible budget") {
    problem.budgets[0].must_free = 21;
    CHECK_THROWS_WITH_AS(solve_quadratic(problem), doctest::Contains("at most 20 can be"), Error);
  }
}
