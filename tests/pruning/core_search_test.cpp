#include <algorithm>
#include <cmath>
#include <limits>
#include <set>

#include "pruning/solve.h"
#include "pruning/solvers/candidates.h"
#include "pruning/solvers/knapsack.h"
#include "pruning/solvers/quadratic.h"
#include "pruning/solvers/surrogate.h"
#include "tests/pruning/random_problems.h"
#include "tests/support/thrown.h"

#include <doctest/doctest.h>

using namespace laptopdiff;
using namespace laptopdiff::pruning;

namespace {

Problem problem_with_form(std::uint64_t seed, int items = 9, bool groups = true) {
  RandomShape shape;
  shape.least_items = shape.most_items = items;
  shape.groups = groups;
  Problem problem = random_problem(shape, seed);
  add_form(problem, seed);
  return problem;
}

// A loss that no model of this library predicts: the Gram loss with a bend and a preference.
double bent_loss(const Problem& problem, const Mask& mask) {
  double weight = 1;
  for (std::size_t i = 0; i < mask.size(); ++i) weight += mask[i] != 0 ? 0.07 * static_cast<double>(i % 3) : 0;
  return weight * std::pow(quadratic_loss(problem, mask), 0.8);
}

struct Counted {
  const Problem& problem;
  std::size_t* masks;
  std::vector<double> operator()(const std::vector<Mask>& asked, Samples) const {
    std::vector<double> losses;
    for (const Mask& mask : asked) losses.push_back(bent_loss(problem, mask));
    *masks += asked.size();
    return losses;
  }
};

// Exact greedy, one layer a round, written plainly.
Mask naive_greedy(const Problem& problem) {
  const auto fixed = decisions(problem);
  const auto need = requirements(problem);
  Mask removed(problem.items.size(), 0);
  for (std::size_t i = 0; i < removed.size(); ++i) removed[i] = fixed[i] == Decision::remove ? 1 : 0;
  while (!meets(problem, removed)) {
    int best = -1;
    double best_ratio = std::numeric_limits<double>::infinity();
    for (std::size_t i = 0; i < removed.size(); ++i) {
      if (removed[i] != 0 || fixed[i]) continue;
      Mask mask = removed;
      mask[i] = 1;
      const double gained = share_met(freed_by(problem, mask), need) - share_met(freed_by(problem, removed), need);
      const bool none = std::count(removed.begin(), removed.end(), 1) == 0;
      const double ratio = (bent_loss(problem, mask) - (none ? 0 : bent_loss(problem, removed))) / gained;
      if (gained > 0 && ratio < best_ratio) {
        best_ratio = ratio;
        best = static_cast<int>(i);
      }
    }
    if (best < 0) return {};
    removed[static_cast<std::size_t>(best)] = 1;
  }
  return removed;
}

}  // namespace

TEST_CASE("exact greedy is the plain loop, and its loss is the true loss") {
  for (std::uint64_t seed = 0; seed < 30; ++seed) {
    const Problem problem = problem_with_form(seed);
    const Mask expected = naive_greedy(problem);
    if (expected.empty()) continue;  // a dead end, which is an error
    std::size_t masks = 0;
    const Solution solution = exact_greedy(problem, Counted{problem, &masks});
    CHECK(solution.removed == expected);
    CHECK(meets(problem, solution.removed));
    if (masks > 0) CHECK(solution.loss == doctest::Approx(bent_loss(problem, solution.removed)));
    CHECK(solution.freed == freed_by(problem, solution.removed));
  }
}

TEST_CASE("exact greedy with several layers a round measures less, meets the budget and knows its loss") {
  for (std::uint64_t seed = 0; seed < 10; ++seed) {
    const Problem problem = problem_with_form(seed, 11, false);
    std::size_t one = 0, three = 0;
    (void)exact_greedy(problem, Counted{problem, &one});
    const Solution solution = exact_greedy(problem, Counted{problem, &three}, {3});
    CHECK(three <= one);
    CHECK(meets(problem, solution.removed));
    if (three > 0) CHECK(solution.loss == doctest::Approx(bent_loss(problem, solution.removed)));
  }
}

TEST_CASE("exact greedy passes over what is not finite and keeps to fixed choices") {
  Problem problem = problem_with_form(4, 9, false);
  problem.budgets[0].must_free = 0.4 * problem.budgets[0].total;
  problem.fixed = {{2, Decision::remove}, {5, Decision::keep}};
  const TrueLosses losses = [&](const std::vector<Mask>& masks, Samples) {
    std::vector<double> values;
    for (const Mask& mask : masks) values.push_back(mask[0] != 0 ? std::nan("") : bent_loss(problem, mask));
    return values;
  };
  const Solution solution = exact_greedy(problem, losses);
  CHECK(solution.removed[0] == 0);
  CHECK(solution.removed[2] == 1);
  CHECK(solution.removed[5] == 0);
  CHECK(test::thrown_by([&] { exact_greedy(problem, losses, {0}); }).code == runtime::ExitCode::usage);
  const TrueLosses none = [](const std::vector<Mask>& masks, Samples) {
    return std::vector<double>(masks.size(), std::nan(""));
  };
  CHECK(test::thrown_by([&] { exact_greedy(problem, none); }).says("no further layer helps"));
}

TEST_CASE("verify keeps the best of what it measured, the solver's own choice among it") {
  for (std::uint64_t seed = 0; seed < 20; ++seed) {
    const Problem problem = problem_with_form(seed, 12);
    const Mask plain = solve_quadratic(problem).removed;
    for (const int most : {1, 2, 5, 12}) {
      std::size_t masks = 0;
      const Verification result = verify(problem, plain, {static_cast<double>(most), 1}, Counted{problem, &masks});
      CHECK(masks <= static_cast<std::size_t>(most));
      REQUIRE(result.masks.size() == masks);
      CHECK(result.masks.front().removed == plain);
      std::set<Mask> different;
      double least = std::numeric_limits<double>::infinity();
      for (const VerifiedMask& mask : result.masks) {
        CHECK(meets(problem, mask.removed));
        CHECK(mask.loss == bent_loss(problem, mask.removed));
        least = std::min(least, mask.loss);
        different.insert(mask.removed);
      }
      CHECK(different.size() == masks);
      CHECK(result.solution.loss == least);
      CHECK(bent_loss(problem, result.solution.removed) == least);
      CHECK(least <= bent_loss(problem, plain));
    }
  }
}

TEST_CASE("with a few samples for the search, verify keeps to its work and to what all samples say") {
  for (std::uint64_t seed = 0; seed < 10; ++seed) {
    const Problem problem = problem_with_form(seed, 12, false);
    const Mask plain = solve_quadratic(problem).removed;
    double work = 0;
    // A few samples see another loss: the same with a tenth more for every third mask.
    const TrueLosses losses = [&](const std::vector<Mask>& masks, Samples samples) {
      std::vector<double> values;
      for (const Mask& mask : masks) {
        const double loss = bent_loss(problem, mask);
        const bool more = std::count(mask.begin(), mask.end(), 1) % 3 == 0;
        values.push_back(samples == Samples::few && more ? 1.1 * loss : loss);
      }
      work += static_cast<double>(masks.size()) * (samples == Samples::few ? 0.125 : 1);
      return values;
    };
    const Verification result = verify(problem, plain, {8, 0.125}, losses);
    CHECK(work <= 8);
    CHECK(result.masks.front().removed == plain);
    CHECK(result.masks.size() == 3);
    CHECK(result.solution.loss <= bent_loss(problem, plain));
    CHECK(result.solution.loss == bent_loss(problem, result.solution.removed));
  }
}

TEST_CASE("verify with the work of two masks measures a second one, on all samples") {
  const Problem problem = problem_with_form(3, 12, false);
  const Mask plain = solve_knapsack(problem).removed;
  REQUIRE(solve_quadratic(problem).removed != plain);
  std::size_t on_all = 0, on_few = 0;
  const TrueLosses losses = [&](const std::vector<Mask>& masks, Samples samples) {
    std::size_t* counted = samples == Samples::all ? &on_all : &on_few;
    return Counted{problem, counted}(masks, samples);
  };
  const Verification result = verify(problem, plain, {2, 0.125}, losses);
  CHECK(on_all == 2);
  CHECK(on_few == 0);
  REQUIRE(result.masks.size() == 2);
  CHECK(result.masks[1].removed != plain);
}

TEST_CASE("verify finds what the models miss: near the optimum of a loss that none of them predicts") {
  double plain_loss = 0, verified_loss = 0, best_loss = 0;
  for (std::uint64_t seed = 0; seed < 20; ++seed) {
    const Problem problem = problem_with_form(seed, 12, false);
    const Mask plain = solve_quadratic(problem).removed;
    std::size_t masks = 0;
    verified_loss += std::log(verify(problem, plain, {40, 1}, Counted{problem, &masks}).solution.loss);
    plain_loss += std::log(bent_loss(problem, plain));
    double least = std::numeric_limits<double>::infinity();
    for (unsigned bits = 0; bits < 1u << 12; ++bits) {
      Mask mask(12);
      for (unsigned i = 0; i < 12; ++i) mask[i] = bits >> i & 1;
      if (meets(problem, mask)) least = std::min(least, bent_loss(problem, mask));
    }
    best_loss += std::log(least);
  }
  CHECK(verified_loss - best_loss <= 0.5 * (plain_loss - best_loss) + 1e-9);
}

TEST_CASE("verify works on scores without a Gram matrix, with fixed choices, and past outputs that are not finite") {
  Problem problem = problem_with_form(3, 12, false);
  const Problem truth = problem;
  problem.form.reset();
  problem.fixed = {{1, Decision::keep}};
  problem.budgets[0].must_free = 0.4 * problem.budgets[0].total;
  const Mask plain = solve_by_name("knapsack", problem).removed;
  int asked = 0;
  const TrueLosses losses = [&](const std::vector<Mask>& masks, Samples) {
    std::vector<double> values;
    for (const Mask& mask : masks) values.push_back(asked++ == 0 ? std::nan("") : bent_loss(truth, mask));
    return values;
  };
  const Verification result = verify(problem, plain, {6, 1}, losses);
  CHECK(result.masks.size() == 6);
  CHECK(std::isnan(result.masks.front().loss));
  CHECK(std::isfinite(result.solution.loss));
  for (const VerifiedMask& mask : result.masks) CHECK(mask.removed[1] == 0);
  CHECK(test::thrown_by([&] { verify(problem, plain, {0, 1}, losses); }).says("--verify 0"));
}

TEST_CASE("models of the loss go from the additive one to the Gram matrix") {
  const Problem problem = problem_with_form(7, 10);
  const Mask all(10, 1);
  Problem diagonal = problem;
  for (Item& item : diagonal.items) item.gain = problem.form->at(*item.row, *item.row);
  for (Group& group : diagonal.groups) {
    if (group.all) group.all->gain = problem.form->at(*group.all->row, *group.all->row);
  }
  CHECK(quadratic_loss(with_interactions(problem, 1), all) == doctest::Approx(quadratic_loss(problem, all)));
  CHECK(quadratic_loss(with_interactions(problem, 0), all) == doctest::Approx(linear_loss(diagonal, all)));
}

TEST_CASE("neighbours meet the budgets, differ, and are all within three flips") {
  for (std::uint64_t seed = 0; seed < 10; ++seed) {
    Problem problem = problem_with_form(seed, 10);
    problem.fixed = {{3, Decision::keep}};
    problem.budgets[0].must_free = 0.5 * problem.budgets[0].total;
    const Mask best = solve_quadratic(problem).removed;
    std::set<Mask> seen;
    for_each_neighbour(problem, best, [&](const Mask& mask) {
      int flips = 0;
      for (std::size_t i = 0; i < mask.size(); ++i) flips += mask[i] != best[i] ? 1 : 0;
      CHECK(flips >= 1);
      CHECK(flips <= 3);
      CHECK(meets(problem, mask));
      CHECK(mask[3] == 0);
      seen.insert(mask);
    });
    std::size_t expected = 0;  // removed by removed: one back, one for one, two for one, one for two
    for (unsigned bits = 0; bits < 1u << 10; ++bits) {
      Mask mask(10);
      int back = 0, more = 0;
      for (unsigned i = 0; i < 10; ++i) {
        mask[i] = bits >> i & 1;
        back += best[i] != 0 && mask[i] == 0 ? 1 : 0;
        more += best[i] == 0 && mask[i] != 0 ? 1 : 0;
      }
      const bool move = (back == 1 && more <= 2) || (back == 2 && more == 1);
      expected += move && mask[3] == 0 && meets(problem, mask) ? 1 : 0;
    }
    CHECK(seen.size() == expected);
  }
}

TEST_CASE("the surrogate starts at the prediction and learns a factor and a weight a layer") {
  const Problem problem = problem_with_form(5, 10, false);
  const Mask mask = {1, 0, 1, 1, 0, 0, 1, 0, 0, 1};
  CHECK(Surrogate(problem, {})(mask) == doctest::Approx(std::log(quadratic_loss(problem, mask))));
  CHECK(Surrogate(problem, {{mask, std::nan("")}})(mask) == doctest::Approx(std::log(quadratic_loss(problem, mask))));
  Draws draws(1, runtime::Purpose::test, 77);
  std::vector<MeasuredMask> measured;
  const auto truth = [&](const Mask& m) { return 3 * quadratic_loss(problem, m) * (m[2] != 0 ? 2.0 : 1.0); };
  for (int k = 0; k < 60; ++k) {
    Mask random(10);
    for (auto& bit : random) bit = draws.below(2) != 0 ? 1 : 0;
    random[0] = 1;
    measured.push_back({random, truth(random)});
  }
  const Surrogate surrogate(problem, measured);
  CHECK(surrogate(mask) == doctest::Approx(std::log(truth(mask))).epsilon(0.02));
  Mask without = mask;
  without[2] = 0;
  CHECK(surrogate(without) == doctest::Approx(std::log(truth(without))).epsilon(0.02));
}

TEST_CASE("solvers that measure say what they need") {
  const Problem problem = problem_with_form(1);
  for (const char* name : {"exact_greedy", "verify"})
    CHECK(test::thrown_by([&] { solve_by_name(name, problem); }).says("--calibration"));
  std::size_t masks = 0;
  SearchTools tools;
  tools.measure = Counted{problem, &masks};
  tools.verify = {4, 1};
  Verification verification;
  tools.verification = &verification;
  CHECK(meets(problem, solve_by_name("verify", problem, tools).removed));
  CHECK(verification.masks.size() == masks);
  CHECK(meets(problem, solve_by_name("exact_greedy", problem, tools).removed));
}
