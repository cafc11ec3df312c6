// The simplest solver, a baseline: remove the item with the least loss per useful amount freed, until all budgets are
// met. What a budget has no more need of counts nothing; budgets are weighed by the share of their need.
#pragma once

#include "pruning/solvers/problem.h"

namespace laptopdiff::pruning {

// Feasible, but with no claim to be good: bound is -infinity. Throws as validate(); usage_error for impossible budgets,
// and where the greedy order runs into a dead end (odd costs of whole groups only).
Solution solve_greedy(const Problem& problem);

}  // namespace laptopdiff::pruning
