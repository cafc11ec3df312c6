// The solvers by name: scores and budgets in, a spec out.
#pragma once

#include <string>
#include <vector>

#include "pruning/problem.h"

namespace laptopdiff::pruning {

// One row a solver; `objective` says what its Solution::loss predicts.
struct SolverRow {
  const char* name;
  const char* objective;  // "sum of scores" or "x'Gx"
  const char* summary;
  Solution (*solve)(const Problem&);
};
const std::vector<SolverRow>& solvers();

// Throws Error(usage) on an unknown name, and where the solver needs a Gram matrix that the scores lack.
Solution solve_by_name(const std::string& name, const Problem& problem);

// A random mask that meets the budgets: units are removed in the order of a seeded permutation until it does, then
// those whose return still leaves the budgets met come back. For audits.
Solution random_mask(const Problem& problem, std::uint64_t seed);

}  // namespace laptopdiff::pruning
