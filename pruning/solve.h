// The solvers by name: scores and budgets in, a spec out.
#pragma once

#include <string>
#include <vector>

#include "pruning/solvers/problem.h"
#include "pruning/solvers/search.h"

namespace laptopdiff::pruning {

// What a search needs beyond the problem. Solvers that measure nothing do not look at it.
struct SearchTools {
  TrueLosses measure;  // empty: no model at hand
  ExactGreedyOptions exact_greedy;
  VerifyOptions verify;
  Verification* verification = nullptr;  // where not null, gets what `verify` measured
};

enum class Measures { no, yes };

// One row a solver; `objective` says what its Solution::loss states.
struct SolverRow {
  const char* name;
  const char* objective;  // "sum of scores", "x'Gx" or "true loss"
  Measures measures;
  // What a mask loses by the objective, without measuring. Solvers that measure predict as well as the scores can.
  double (*predict)(const Problem&, const Mask&);
  Solution (*solve)(const Problem&, const SearchTools&);
};
const std::vector<SolverRow>& solvers();

// Throws Error(usage) on an unknown name.
const SolverRow& solver_row(const std::string& name);

// Throws Error(usage) on an unknown name, where the solver needs a Gram matrix that the scores lack, and where it
// measures and has nothing to measure with.
Solution solve_by_name(const std::string& name, const Problem& problem, const SearchTools& tools = {});

// A random mask that meets the budgets: units are removed in the order of a seeded permutation until it does, then
// those whose return still leaves the budgets met come back. For audits.
Solution random_mask(const Problem& problem, std::uint64_t seed);

}  // namespace laptopdiff::pruning
