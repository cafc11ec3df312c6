#include "pruning/solve.h"

#include <algorithm>

#include "pruning/greedy.h"
#include "pruning/knapsack.h"
#include "pruning/quadratic.h"
#include "runtime/error.h"
#include "runtime/random.h"

namespace laptopdiff::pruning {

const std::vector<SolverRow>& solvers() {
  static const std::vector<SolverRow> kRows = {
      {"knapsack", "sum of scores", "exact 0/1 knapsack over a dominance front",
       [](const Problem& p) { return solve_knapsack(p); }},
      {"gram", "x'Gx", "sees interactions: local search from the knapsack, then branch and bound",
       [](const Problem& p) { return solve_quadratic(p); }},
      {"greedy", "sum of scores", "by score per amount freed", [](const Problem& p) { return solve_greedy(p); }},
  };
  return kRows;
}

Solution solve_by_name(const std::string& name, const Problem& problem) {
  std::vector<std::string> known;
  for (const SolverRow& row : solvers()) {
    known.emplace_back(row.name);
    if (name != row.name) continue;
    if (name == "gram" && !problem.form)
      throw runtime::usage_error("--solver gram: these scores have no Gram matrix; score with output_loss");
    return row.solve(problem);
  }
  throw runtime::usage_error("unknown solver `", name, "`", runtime::did_you_mean(name, known));
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
