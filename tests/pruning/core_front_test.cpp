#include <algorithm>
#include <limits>
#include <vector>

#include "pruning/solvers/front.h"
#include "pruning/solvers/stages.h"
#include "tests/pruning/random_problems.h"

#include <doctest/doctest.h>

using namespace laptopdiff::pruning;

namespace {

// A front of random states over 70 items (two words of mask), in the order of their ranks.
StateSet random_front(int dims, int states, std::uint64_t distinct, Draws& draws) {
  StateSet front{dims, 2, {}, {}, {}, {}};
  for (int s = 0; s < states; ++s) {
    std::vector<int> removed;
    for (int i = 0; i < 70; ++i) {
      if (draws.below(10) == 0) removed.push_back(i);
    }
    std::vector<double> freed;
    for (int d = 0; d < dims; ++d) freed.push_back(double(draws.below(distinct)));
    front = merge(front, single_choice(70, removed, double(draws.below(distinct)), freed));
  }
  return front;
}

bool dominates(const StateSet& a, std::size_t i, const StateSet& b, std::size_t j) {
  return std::ranges::equal(a.freed_of(i), b.freed_of(j), std::greater_equal<>()) && !ranks_before(b, j, a, i);
}

bool holds(const StateSet& set, const StateSet& of, std::size_t i) {
  for (std::size_t j = 0; j < set.size(); ++j) {
    if (set.loss[j] == of.loss[i] && std::ranges::equal(set.mask_of(j), of.mask_of(i))) return true;
  }
  return false;
}

}  // namespace

TEST_CASE("front: a merge keeps exactly what nothing dominates") {
  for (int dims = 0; dims <= 4; ++dims) {
    for (std::uint64_t distinct : {3, 12, 1000}) {
      CAPTURE(dims);
      CAPTURE(distinct);
      Draws draws(distinct, laptopdiff::runtime::Purpose::test, dims);
      const StateSet a = random_front(dims, 60, distinct, draws);
      const StateSet b = random_front(dims, 60, distinct, draws);
      const StateSet both = merge(a, b);
      for (const auto& [own, other] : {std::pair(&a, &b), std::pair(&b, &a)}) {
        for (std::size_t i = 0; i < own->size(); ++i) {
          bool dominated = false;
          for (std::size_t j = 0; j < other->size(); ++j) dominated |= dominates(*other, j, *own, i);
          CHECK(holds(both, *own, i) == !dominated);
        }
      }
      for (std::size_t i = 1; i < both.size(); ++i) CHECK(ranks_before(both, i - 1, both, i));
    }
  }
}

TEST_CASE("front: ranks go by loss, then fewer removed, then the earlier item kept") {
  const StateSet cheap = single_choice(70, {0, 1, 2}, 1, {0});
  const StateSet few = single_choice(70, {0}, 2, {0});
  const StateSet many = single_choice(70, {68, 69}, 2, {0});
  const StateSet late = single_choice(70, {69}, 2, {0});
  CHECK(ranks_before(cheap, 0, few, 0));
  CHECK(ranks_before(few, 0, many, 0));
  CHECK(ranks_before(late, 0, few, 0));
  CHECK_FALSE(ranks_before(few, 0, few, 0));
  CHECK(unpack(late.mask_of(0), 70)[69] == 1);
  CHECK(unpack(few.mask_of(0), 70)[0] == 1);
}

TEST_CASE("hull bound: the linear relaxation of a hand-worked knapsack") {
  Problem problem;  // 2 a unit, 1 a unit, 3 a unit; and a gift
  problem.items = {{"a", 20, {10}, {}}, {"b", 5, {5}, {}}, {"c", 30, {10}, {}}, {"d", -1, {2}, {}}};
  problem.budgets = {{"x", 0, 0}};
  const double most = std::numeric_limits<double>::infinity();
  const auto stages = make_stages(problem, std::vector<double>{most}, 1000);
  const HullBound bound(options_from(stages, 0), {1.0});
  CHECK(bound.loss_to_free(0) == -1);
  CHECK(bound.loss_to_free(2) == -1);
  CHECK(bound.loss_to_free(7) == 4);
  CHECK(bound.loss_to_free(12) == 14);
  CHECK(bound.loss_to_free(27) == 54);
  CHECK(bound.loss_to_free(28) == most);
  CHECK(bound.slope_at(12) == 2);
}

TEST_CASE("hull bound and dual weights: below every choice that frees enough") {
  RandomShape shape;
  shape.negative_gains = true;
  shape.most_items = 9;
  for (int budgets = 1; budgets <= 3; ++budgets) {
    shape.budgets = budgets;
    for (std::uint64_t seed = 0; seed < 20; ++seed) {
      CAPTURE(seed);
      const Problem problem = random_problem(shape, seed);
      const std::vector<double> need = requirements(problem);
      const std::vector<double> unlimited(budgets, std::numeric_limits<double>::infinity());
      const auto stages = make_stages(problem, unlimited, 100000);
      const std::vector<double> weights = dual_weights(stages, need);
      const Regrets known = regrets(stages, weights, need);
      const HullBound bound(options_from(stages, 0), weights);
      const int n = static_cast<int>(problem.items.size());
      for (unsigned bits = 0; bits < 1u << n; ++bits) {
        Mask mask(n);
        for (int i = 0; i < n; ++i) mask[i] = bits >> i & 1;
        if (!meets(problem, mask)) continue;
        const double loss = linear_loss(problem, mask) + 1e-9;
        REQUIRE(bound.loss_to_free(bound.weigh(need)) <= loss);
        REQUIRE(known.bound <= loss);
      }
    }
  }
}
