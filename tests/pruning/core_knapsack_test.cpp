#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>
#include <string>
#include <vector>

#include "pruning/solvers/greedy.h"
#include "pruning/solvers/knapsack.h"
#include "pruning/solvers/problem.h"
#include "runtime/error.h"
#include "runtime/random.h"
#include "tests/pruning/random_problems.h"

#include <doctest/doctest.h>

using namespace laptopdiff::pruning;
using laptopdiff::runtime::Error;
using laptopdiff::runtime::ExitCode;

namespace {

// The best mask in the order that the solver promises: loss, then fewer removed, then the earlier item kept.
std::optional<Mask> brute_force(const Problem& problem) {
  const int n = static_cast<int>(problem.items.size());
  std::optional<Mask> best;
  double best_loss = 0;
  long best_count = 0;
  for (unsigned bits = 0; bits < 1u << n; ++bits) {  // ascending = lexicographic, item 0 being the highest bit
    Mask mask(n);
    for (int i = 0; i < n; ++i) mask[i] = bits >> (n - 1 - i) & 1;
    if (!respects_fixed(problem, mask) || !meets(problem, mask)) continue;
    const double loss = linear_loss(problem, mask);
    const long count = std::count(mask.begin(), mask.end(), 1);
    if (best && (loss > best_loss || (loss == best_loss && count >= best_count))) continue;
    best = mask;
    best_loss = loss;
    best_count = count;
  }
  return best;
}

void check_against_brute_force(const RandomShape& shape, int instances) {
  int feasible = 0;
  for (int seed = 0; seed < instances; ++seed) {
    const Problem problem = random_problem(shape, static_cast<std::uint64_t>(seed));
    CAPTURE(seed);
    const std::optional<Mask> expected = brute_force(problem);
    if (!expected) {
      CHECK_THROWS_AS(solve_knapsack(problem), Error);
      continue;
    }
    ++feasible;
    const Solution solution = solve_knapsack(problem);
    REQUIRE(solution.removed == *expected);
    CHECK(solution.loss == linear_loss(problem, *expected));
    CHECK(solution.bound == solution.loss);
    CHECK(solution.freed == freed_by(problem, *expected));
    CHECK(solution.proven_optimal);
  }
  CHECK(feasible > instances / 4);
}

// Three layers of 30 parameters, the last two of which share a shell of 10.
Problem hand_worked() {
  Problem problem;
  problem.items = {{"a", 5, {30}, {}}, {"b", 2, {30}, {}}, {"c", 4, {30}, {}}};
  problem.groups = {{{1, 2}, Item{"shell", 5.5, {70}, {}}}};
  problem.budgets = {{"params", 0, 200}};
  return problem;
}

Error error_of(const Problem& problem) {
  try {
    solve_knapsack(problem);
  } catch (const Error& error) {
    return error;
  }
  return Error(ExitCode::ok, "");
}

bool says(const Error& error, const std::string& words) {
  return std::string(error.what()).find(words) != std::string::npos;
}

}  // namespace

TEST_CASE("knapsack: a hand-worked problem with a shell") {
  Problem problem = hand_worked();
  const auto solve_for = [&](double must_free) {
    problem.budgets[0].must_free = must_free;
    return solve_knapsack(problem);
  };
  CHECK(solve_for(0).removed == Mask{0, 0, 0});
  CHECK(solve_for(30).removed == Mask{0, 1, 0});
  CHECK(solve_for(31).removed == Mask{0, 1, 1});  // the emptied shell counts 5.5 for 70, not 2 + 4 for 60
  CHECK(solve_for(31).loss == 5.5);
  CHECK(solve_for(70).freed == std::vector<double>{70});
  CHECK(solve_for(71).removed == Mask{1, 1, 1});
  CHECK(solve_for(100).loss == 10.5);
}

TEST_CASE("knapsack: equals brute force on random instances") {
  RandomShape shape;
  SUBCASE("one budget, whole costs, no groups") { shape.groups = false; }
  SUBCASE("one budget, whole costs, groups") {}
  SUBCASE("one budget, measured costs") { shape.whole_costs = false; }
  SUBCASE("two budgets, whole costs") { shape.budgets = 2; }
  SUBCASE("two budgets, measured costs") {
    shape.budgets = 2;
    shape.whole_costs = false;
  }
  SUBCASE("three budgets") {
    shape.budgets = 3;
    shape.whole_costs = false;
  }
  SUBCASE("no budget at all") { shape.budgets = 0; }
  SUBCASE("fixed choices") { shape.fixed = true; }
  SUBCASE("negative gains") { shape.negative_gains = true; }
  SUBCASE("ties everywhere") { shape.ties = true; }
  SUBCASE("ties everywhere, two budgets, fixed choices, negative gains") {
    shape.ties = shape.fixed = shape.negative_gains = true;
    shape.budgets = 2;
  }
  check_against_brute_force(shape, 90);
}

TEST_CASE("knapsack: equals brute force at 16 items") {
  RandomShape shape;
  shape.least_items = shape.most_items = 16;
  SUBCASE("one budget") { check_against_brute_force(shape, 8); }
  SUBCASE("two budgets") {
    shape.budgets = 2;
    check_against_brute_force(shape, 8);
  }
}

TEST_CASE("knapsack: equals brute force where groups have more subsets than a front is grown by at once") {
  RandomShape shape;
  shape.least_items = 12;
  shape.most_items = 13;
  shape.largest_group = 12;
  SUBCASE("one budget") {}
  SUBCASE("one budget, measured costs, negative gains") {
    shape.whole_costs = false;
    shape.negative_gains = true;
  }
  SUBCASE("two budgets, fixed choices") {
    shape.budgets = 2;
    shape.fixed = true;
  }
  check_against_brute_force(shape, 25);
}

TEST_CASE("knapsack curve: a hand-worked front") {
  const KnapsackCurve curve = knapsack_curve(hand_worked());
  REQUIRE(curve.size() == 4);
  CHECK(curve.removed(0) == Mask{0, 0, 0});
  CHECK(curve.freed(1) == 30);
  CHECK(curve.loss(2) == 5.5);
  CHECK(curve.freed(2) == 70);
  CHECK(curve.removed(3) == Mask{1, 1, 1});
}

TEST_CASE("knapsack curve: every target gives what a solve for it gives") {
  RandomShape shape;
  SUBCASE("whole costs") {}
  SUBCASE("measured costs") { shape.whole_costs = false; }
  SUBCASE("ties and negative gains") { shape.ties = shape.negative_gains = true; }
  SUBCASE("fixed choices") { shape.fixed = true; }
  SUBCASE("large groups") {
    shape.whole_costs = false;
    shape.most_items = 16;
    shape.largest_group = 16;
  }
  for (std::uint64_t seed = 0; seed < 40; ++seed) {
    CAPTURE(seed);
    Problem problem = random_problem(shape, seed);
    const KnapsackCurve curve = knapsack_curve(problem);
    const double most = curve.freed(curve.size() - 1);
    for (int step = 0; step <= 20; ++step) {
      problem.budgets[0].must_free = most * step / 20;
      const Solution expected = solve_knapsack(problem);
      const Solution found = curve.at_target(problem.budgets[0].must_free);
      REQUIRE(found.removed == expected.removed);
      REQUIRE(found.loss == expected.loss);
      REQUIRE(found.freed == expected.freed);
    }
    for (std::size_t i = 1; i < curve.size(); ++i) {
      REQUIRE(curve.freed(i) > curve.freed(i - 1));
      REQUIRE(curve.loss(i) >= curve.loss(i - 1));
    }
  }
}

TEST_CASE("knapsack curve: a quantum shortens it, and its points stay true choices") {
  RandomShape shape;
  shape.whole_costs = false;
  shape.least_items = shape.most_items = 16;
  const Problem problem = random_problem(shape, 5);
  const KnapsackCurve exact = knapsack_curve(problem);
  const double most = exact.freed(exact.size() - 1);
  const KnapsackCurve coarse = knapsack_curve(problem, {.quantum = most / 50});
  CHECK(coarse.size() < exact.size());
  for (std::size_t i = 0; i < coarse.size(); ++i) {
    CHECK(coarse.freed(i) == freed_by(problem, coarse.removed(i))[0]);
    CHECK(coarse.loss(i) == linear_loss(problem, coarse.removed(i)));
    CHECK(coarse.loss(i) >= exact.at_target(coarse.freed(i)).loss);
  }
}

TEST_CASE("knapsack: 87 layers with distinct costs, as the curve has it, and never above greedy") {
  for (std::uint64_t seed = 0; seed < 8; ++seed) {
    const Problem problem = sdxl_problem(seed, 0.1 * double(seed + 1));
    const KnapsackCurve curve = knapsack_curve(problem);
    CHECK(curve.at_target(problem.budgets[0].must_free).removed == solve_knapsack(problem).removed);
    const Solution exact = solve_knapsack(problem);
    const Solution greedy = solve_greedy(problem);
    CHECK(meets(problem, exact.removed));
    CHECK(meets(problem, greedy.removed));
    CHECK(exact.loss <= greedy.loss);
    CHECK(solve_knapsack(problem).removed == exact.removed);
  }
}

TEST_CASE("greedy: takes the best ratio first and respects fixed choices") {
  Problem problem;
  problem.items = {{"a", 9, {30}, {}}, {"b", 4, {10}, {}}, {"c", 1, {10}, {}}, {"d", -1, {0}, {}}};
  problem.budgets = {{"params", 40, 0}};
  CHECK(solve_greedy(problem).removed == Mask{1, 0, 1, 1});
  problem.fixed = {{0, Decision::keep}, {1, Decision::remove}};
  problem.budgets[0].must_free = 20;
  CHECK(solve_greedy(problem).removed == Mask{0, 1, 1, 1});
  CHECK_FALSE(solve_greedy(problem).proven_optimal);
}

TEST_CASE("greedy: feasible on random instances, and never better than the exact solver") {
  RandomShape shape;
  shape.budgets = 2;
  for (std::uint64_t seed = 0; seed < 100; ++seed) {
    const Problem problem = random_problem(shape, seed);
    if (!brute_force(problem)) continue;
    Solution greedy;
    try {
      greedy = solve_greedy(problem);
    } catch (const Error&) {
      continue;  // a dead end is allowed; it says so
    }
    CHECK(meets(problem, greedy.removed));
    CHECK(greedy.loss >= solve_knapsack(problem).loss);
  }
}

TEST_CASE("greedy: says where it runs into a dead end") {
  Problem problem;  // b looks best; after it, a would empty the group and free less than is needed
  problem.items = {{"a", 1, {10}, {}}, {"b", 0.1, {5}, {}}, {"c", 5, {0.5}, {}}};
  problem.groups = {{{0, 1}, Item{"all", 1, {4}, {}}}};
  problem.budgets = {{"latency", 10.5, 0}};
  CHECK(solve_knapsack(problem).removed == Mask{1, 0, 1});
  CHECK_THROWS_WITH_AS(solve_greedy(problem), doctest::Contains("use the knapsack solver"), Error);
}

TEST_CASE("solvers refuse what cannot be solved, and say why") {
  Problem problem = hand_worked();
  SUBCASE("a budget out of reach") {
    problem.budgets[0].must_free = 150;
    const Error error = error_of(problem);
    CHECK(error.code() == ExitCode::usage);
    CHECK(says(error, "budget `params` needs 150 to be removed, but at most 100 can be of 200"));
    CHECK(says(error, "params=0.5"));
    CHECK_THROWS_AS(solve_greedy(problem), Error);
  }
  SUBCASE("a budget out of reach through fixed choices, total unknown") {
    problem.budgets[0] = {"macs", 95, 0};
    problem.fixed = {{1, Decision::keep}};
    const Error error = error_of(problem);
    CHECK(error.code() == ExitCode::usage);
    CHECK(says(error, "at most 60 can be; ask for 60 at most"));
    CHECK(says(error, "(1 layers are fixed; fix fewer to reach further)"));
  }
  SUBCASE("the share that the message offers can be met") {
    problem.budgets[0] = {"params", 150, 130};
    CHECK(says(error_of(problem), "params=0.2308"));
    problem.budgets[0].must_free = 130 * (1 - 0.2308);
    CHECK(solve_knapsack(problem).freed[0] == 100);
  }
  SUBCASE("budgets that can only be met one by one") {
    problem.items = {{"a", 1, {10, 0}, {}}, {"b", 1, {0, 10}, {}}};
    problem.groups = {{{0, 1}, Item{"all", 1, {5, 5}, {}}}};
    problem.budgets = {{"params", 10, 0}, {"latency", 10, 0}};
    const Error error = error_of(problem);
    CHECK(error.code() == ExitCode::usage);
    CHECK(says(error, "each budget can be met alone, but no choice meets all of them: `params` (at most 10"));
    CHECK_THROWS_AS(solve_greedy(problem), Error);
  }
  SUBCASE("a front that outgrows its limit") {
    const Problem large = sdxl_problem(1, 0.5);
    CHECK_THROWS_WITH_AS(solve_knapsack(large, {.max_states = 10}), doctest::Contains("use fewer budgets at once"),
                         Error);
    CHECK_THROWS_WITH_AS(knapsack_curve(large, {.max_states = 100}), doctest::Contains("partial choices"), Error);
  }
  SUBCASE("contradictory fixed choices") {
    problem.fixed = {{1, Decision::keep}, {1, Decision::remove}};
    CHECK(error_of(problem).code() == ExitCode::usage);
    CHECK(says(error_of(problem), "`b` is to be kept and to be removed"));
  }
  SUBCASE("a curve without a budget") {
    problem.items.resize(1);
    problem.items[0].cost.clear();
    problem.groups.clear();
    problem.budgets.clear();
    CHECK_THROWS_WITH_AS(knapsack_curve(problem), doctest::Contains("a curve needs a budget"), Error);
  }
  SUBCASE("a negative quantum") {
    CHECK_THROWS_WITH_AS(knapsack_curve(problem, {.quantum = -1}), doctest::Contains("quantum is -1"), Error);
  }
  SUBCASE("a curve whose quantum leaves too little") {
    const KnapsackCurve curve = knapsack_curve(problem, {.quantum = 65});  // only `all` still counts
    CHECK_THROWS_WITH_AS(curve.at_target(100), doctest::Contains("take a smaller quantum"), Error);
  }
}

TEST_CASE("solvers refuse malformed problems, and say why") {
  Problem problem = hand_worked();
  SUBCASE("a score that is not finite") {
    problem.items[1].gain = std::numeric_limits<double>::quiet_NaN();
    CHECK(error_of(problem).code() == ExitCode::non_finite);
    CHECK(says(error_of(problem), "the score of `b` is"));
  }
  SUBCASE("a score of a whole group that is not finite") {
    problem.groups[0].all->gain = std::numeric_limits<double>::infinity();
    CHECK(error_of(problem).code() == ExitCode::non_finite);
    CHECK(says(error_of(problem), "`shell`"));
  }
  SUBCASE("a cost that is not finite") {
    problem.items[1].cost[0] = std::numeric_limits<double>::infinity();
    CHECK(error_of(problem).code() == ExitCode::non_finite);
    CHECK(says(error_of(problem), "the cost of `b` in `params`"));
  }
  SUBCASE("a score whose sums and products overflow") {
    for (Item& item : problem.items) item.gain = 1e308;
    CHECK(error_of(problem).code() == ExitCode::bad_input);
    CHECK(says(error_of(problem), "the score of `a` is 1e+308, expected at most 1e+100 in magnitude"));
  }
  SUBCASE("a cost whose sums and products overflow") {
    problem.items[1].cost[0] = 1e300;
    CHECK(error_of(problem).code() == ExitCode::bad_input);
    CHECK(says(error_of(problem), "the cost of `b` in `params` is 1e+300, expected at most"));
  }
  SUBCASE("a negative cost") {
    problem.items[1].cost[0] = -3;
    CHECK(error_of(problem).code() == ExitCode::bad_input);
    CHECK(says(error_of(problem), "`b` in `params` is -3, expected 0 or more"));
  }
  SUBCASE("a budget that is not finite") {
    problem.budgets[0].must_free = std::numeric_limits<double>::quiet_NaN();
    CHECK(error_of(problem).code() == ExitCode::non_finite);
  }
  SUBCASE("a missing cost") {
    problem.items[2].cost.clear();
    CHECK(error_of(problem).code() == ExitCode::bad_input);
    CHECK(says(error_of(problem), "`c` has 0 costs, expected one for each of the 1 budgets"));
  }
  SUBCASE("a group without members") {
    problem.groups.push_back({});
    CHECK(says(error_of(problem), "group 1 has no members"));
  }
  SUBCASE("a member that is not there") {
    problem.groups[0].members.push_back(7);
    CHECK(says(error_of(problem), "group 0 names item 7, expected 0 to 2"));
  }
  SUBCASE("a member of two groups") {
    problem.groups.push_back({{0, 2}, {}});
    CHECK(says(error_of(problem), "`c` is in group 0 and in group 1"));
  }
  SUBCASE("a fixed choice for an item that is not there") {
    problem.fixed = {{3, Decision::keep}};
    CHECK(error_of(problem).code() == ExitCode::bad_input);
    CHECK(says(error_of(problem), "names item 3, expected 0 to 2"));
  }
}

TEST_CASE("requirements: whole costs are compared exactly, measured ones with a slack for rounding") {
  Problem problem = hand_worked();
  problem.budgets[0].must_free = (1 - 0.7) * 100;  // 30.000000000000004
  CHECK(requirements(problem)[0] == 30);
  problem.budgets[0].must_free = 29.5;
  CHECK(requirements(problem)[0] == 30);
  problem.budgets[0].must_free = -5;
  CHECK(requirements(problem)[0] == 0);
  for (Item& item : problem.items) item.cost[0] = 0.1;
  problem.groups.clear();
  problem.budgets[0].must_free = 0.3;  // 0.1 + 0.1 + 0.1 is above it, in some other order it might not be
  CHECK(requirements(problem)[0] < 0.3);
  CHECK(solve_knapsack(problem).removed == Mask{1, 1, 1});
}
