#include "pruning/solve.h"

#include <algorithm>

#include "pruning/solvers/greedy.h"
#include "pruning/solvers/knapsack.h"
#include "pruning/solvers/quadratic.h"
#include "runtime/error.h"
#include "runtime/random.h"

namespace laptopdiff::pruning {

namespace {

// The best of what can be had without measuring.
Mask plain_choice(const Problem& problem) {
  return problem.form ? solve_quadratic(problem).removed : solve_knapsack(problem).removed;
}

double best_prediction(const Problem& problem, const Mask& removed) {
  return problem.form ? quadratic_loss(problem, removed) : linear_loss(problem, removed);
}

Solution run_verify(const Problem& problem, const SearchTools& tools) {
  Verification result = verify(problem, plain_choice(problem), tools.verify, tools.measure);
  const Solution solution = result.solution;
  if (tools.verification != nullptr) *tools.verification = std::move(result);
  return solution;
}

}  // namespace

const std::vector<SolverRow>& solvers() {
  static const std::vector<SolverRow> kRows = {
      // Exact 0/1 knapsack over a dominance front.
      {"knapsack", "sum of scores", Measures::no, linear_loss,
       [](const Problem& p, const SearchTools&) { return solve_knapsack(p); }},
      // Sees interactions: local search from the knapsack, then branch and bound.
      {"gram", "x'Gx", Measures::no, quadratic_loss,
       [](const Problem& p, const SearchTools&) { return solve_quadratic(p); }},
      // By score per amount freed.
      {"greedy", "sum of scores", Measures::no, linear_loss,
       [](const Problem& p, const SearchTools&) { return solve_greedy(p); }},
      // Measures all that is left on top of what is removed, every round.
      {"exact_greedy", "true loss", Measures::yes, best_prediction,
       [](const Problem& p, const SearchTools& t) { return exact_greedy(p, t.measure, t.exact_greedy); }},
      // Measures the best masks of several models of the loss and keeps the best.
      {"verify", "true loss", Measures::yes, best_prediction, run_verify},
  };
  return kRows;
}

const SolverRow& solver_row(const std::string& name) {
  std::vector<std::string> known;
  for (const SolverRow& row : solvers()) {
    if (name == row.name) return row;
    known.emplace_back(row.name);
  }
  throw runtime::usage_error("unknown solver `", name, "`", runtime::did_you_mean(name, known));
}

Solution solve_by_name(const std::string& name, const Problem& problem, const SearchTools& tools) {
  const SolverRow& row = solver_row(name);
  if (name == "gram" && !problem.form)
    throw runtime::usage_error("--solver gram: these scores have no Gram matrix; score with output_loss");
  if (row.measures == Measures::yes && !tools.measure) {
    throw runtime::usage_error("--solver ", name,
                               " measures true losses: give --calibration, and a model with its weights");
  }
  return row.solve(problem, tools);
}

Solution random_mask(const Problem& problem, std::uint64_t seed) {
  validate(problem);
  check_reachable(problem);
  const auto n = static_cast<std::int64_t>(problem.items.size());
  const auto fixed = decisions(problem);
  Mask mask(problem.items.size(), 0);
  for (std::size_t i = 0; i < mask.size(); ++i) mask[i] = fixed[i] == Decision::remove ? 1 : 0;
  const std::vector<std::int64_t> order = runtime::permutation(n, seed, runtime::Purpose::random_mask, 0);
  for (const std::int64_t i : order) {
    if (meets(problem, mask)) break;
    if (!fixed[static_cast<std::size_t>(i)]) mask[static_cast<std::size_t>(i)] = 1;
  }
  if (!meets(problem, mask)) throw_jointly_impossible(problem);
  for (const std::int64_t i : order) {
    std::uint8_t& bit = mask[static_cast<std::size_t>(i)];
    if (bit == 0 || fixed[static_cast<std::size_t>(i)]) continue;
    bit = 0;
    if (!meets(problem, mask)) bit = 1;
  }
  Solution solution{mask, freed_by(problem, mask), linear_loss(problem, mask), 0, false};
  return solution;
}

}  // namespace laptopdiff::pruning
