#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "pruning/solvers/branch_and_bound.h"
#include "pruning/solvers/ordered_form.h"
#include "pruning/solvers/quadratic.h"
#include "pruning/solvers/relaxation.h"
#include "tests/pruning/random_problems.h"

#include <doctest/doctest.h>

using namespace laptopdiff::pruning;

namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

struct Choice {
  std::vector<std::uint8_t> y;
  double loss;
};

// Every mask that meets budgets and fixed choices, as variables of the form.
std::vector<Choice> all_choices(const Problem& problem, const BinaryForm& form) {
  std::vector<Choice> choices;
  const int n = static_cast<int>(problem.items.size());
  for (unsigned bits = 0; bits < 1u << n; ++bits) {
    Mask mask(n);
    for (int i = 0; i < n; ++i) mask[i] = bits >> i & 1;
    if (!respects_fixed(problem, mask)) continue;
    const auto y = form.variables(mask);
    if (form.is_feasible(y)) choices.push_back({y, form.loss(y)});
  }
  return choices;
}

// The least loss among the choices that begin as `prefix`.
double least_loss(const std::vector<Choice>& choices, const std::vector<std::uint8_t>& prefix) {
  double least = kInfinity;
  for (const Choice& choice : choices) {
    if (std::equal(prefix.begin(), prefix.end(), choice.y.begin())) least = std::min(least, choice.loss);
  }
  return least;
}

int fixed_count(const BinaryForm& form) {
  return static_cast<int>(std::count_if(form.domain.begin(), form.domain.end(),
                                        [](Domain domain) { return domain == Domain::zero || domain == Domain::one; }));
}

void check_bounds(const Problem& problem, std::uint64_t seed) {
  const BinaryForm form = make_binary_form(problem);
  Draws draws(seed, laptopdiff::runtime::Purpose::test, 4);
  std::vector<double> urgency(form.size), weights(form.budgets), importance(form.size);
  for (double& u : urgency) u = draws.uniform();
  for (double& w : weights) w = 0.1 + draws.uniform();
  for (double& i : importance) i = 0.05 + 0.2 * draws.uniform();
  const int first = fixed_count(form);
  const auto order = branching_order(form, urgency);
  const Relaxation relaxation(reorder(form, order, weights), importance, first, seed % 2 == 0);
  const BinaryForm& ordered = relaxation.ordered().form;
  const auto choices = all_choices(problem, ordered);
  for (const Choice& choice : choices) {
    if (draws.below(1 + choices.size() / 20) > 0) continue;
    const int level = first + static_cast<int>(draws.below(std::uint64_t(form.size - first) + 1));
    if (level == form.size) continue;
    Node node{level, {choice.y.begin(), choice.y.begin() + level}, std::vector<double>(form.size - level)};
    for (double& y : node.point) y = draws.uniform();
    const std::vector<std::uint8_t> prefix = node.fixed;
    const NodeBound found = relaxation.bound(node, kInfinity);
    const double least = least_loss(choices, prefix);
    REQUIRE(found.bound <= least + 1e-8 * std::max(1.0, std::abs(least)));
    REQUIRE(static_cast<int>(found.vertex.size()) == form.size - level);
    std::vector<std::uint8_t> whole = prefix;
    whole.insert(whole.end(), found.vertex.begin(), found.vertex.end());
    CHECK(ordered.variables(ordered.removed(whole)) == whole);
    CHECK(respects_fixed(problem, ordered.removed(whole)));
  }
}

}  // namespace

TEST_CASE("relaxation: no bound is above the best completion of its node, and its vertices are choices") {
  RandomShape shape;
  shape.most_items = 10;
  Kind kind = Kind::gram;
  SUBCASE("no groups") { shape.groups = false; }
  SUBCASE("groups") {}
  SUBCASE("groups, fixed choices") { shape.fixed = true; }
  SUBCASE("two budgets") { shape.budgets = 2; }
  SUBCASE("many zero costs") { shape.ties = true; }
  SUBCASE("no budget, indefinite") {
    shape.budgets = 0;
    kind = Kind::indefinite;
  }
  SUBCASE("groups, fixed choices, indefinite") {
    shape.fixed = true;
    kind = Kind::indefinite;
  }
  for (std::uint64_t seed = 0; seed < 40; ++seed) {
    CAPTURE(seed);
    Problem problem = random_problem(shape, seed);
    add_form(problem, seed, kind);
    check_bounds(problem, seed);
  }
}

TEST_CASE("relaxation: a node that cannot meet the budget has an infinite bound") {
  Problem problem;
  problem.items = {{"a", 0, {10}, 0}, {"b", 0, {10}, 1}, {"c", 0, {10}, 2}};
  problem.form = QuadraticForm{3, {1, 0, 0, 0, 1, 0, 0, 0, 1}};
  problem.budgets = {{"x", 20, 0}};
  const std::vector<double> ones(3, 1.0);
  const Relaxation relaxation(reorder(make_binary_form(problem), {0, 1, 2}, std::vector<double>{1.0}), ones, 0, true);
  Node hopeless{2, {0, 0}, {0.5}};
  CHECK(relaxation.bound(hopeless, kInfinity).bound == kInfinity);
  Node open{1, {0}, {0.5, 0.5}};
  CHECK(relaxation.bound(open, kInfinity).bound == doctest::Approx(2));
}

TEST_CASE("branch and bound: finds the optimum from a bad start") {
  RandomShape shape;
  Kind kind = Kind::gram;
  SUBCASE("groups") {}
  SUBCASE("fixed choices, two budgets") {
    shape.fixed = true;
    shape.budgets = 2;
  }
  SUBCASE("indefinite") { kind = Kind::indefinite; }
  for (std::uint64_t seed = 0; seed < 40; ++seed) {
    CAPTURE(seed);
    Problem problem = random_problem(shape, seed);
    add_form(problem, seed, kind);
    const BinaryForm form = make_binary_form(problem);
    std::vector<Choice> choices = all_choices(problem, form);
    if (choices.empty()) continue;
    std::sort(choices.begin(), choices.end(), [](const Choice& a, const Choice& b) { return a.loss < b.loss; });
    const TreeResult tree = branch_and_bound(problem, form, choices.back().y, 100'000);
    CHECK(tree.proven);
    CHECK(tree.loss == doctest::Approx(choices.front().loss).epsilon(1e-8));
    CHECK(form.loss(tree.y) == tree.loss);
    // Cut short, it still states a true bound.
    const TreeResult stub = branch_and_bound(problem, form, choices.back().y, 1);
    CHECK(stub.bound <= choices.front().loss + 1e-8 * std::max(1.0, std::abs(choices.front().loss)));
  }
}

TEST_CASE("relaxation: the tree proves 38 correlated layers in few nodes") {
  RandomShape shape;
  shape.least_items = shape.most_items = 38;
  SUBCASE("lone layers") { shape.groups = false; }
  SUBCASE("groups") {}
  SUBCASE("two measured budgets") {
    shape.budgets = 2;
    shape.whole_costs = false;
  }
  for (std::uint64_t seed = 0; seed < 4; ++seed) {
    CAPTURE(seed);
    Problem problem = random_problem(shape, seed);
    for (Budget& budget : problem.budgets) budget.must_free = 0.5 * budget.total;
    add_form(problem, seed);
    CHECK(solve_quadratic(problem, {.max_nodes = 50'000}).proven_optimal);
  }
}
