// Minimises x'Qx under the budgets: the loss of a set of layers with their interactions.
//
// With G the Gram matrix of the layers' output differences, x'Gx is the mean squared output difference of removing all
// of x, exact where the differences add up. Starts at the knapsack's choice for the diagonal, searches locally with
// restarts, then branches and bounds with a convex relaxation (relaxation.h).
#pragma once

#include <cstdint>

#include "pruning/solvers/knapsack.h"
#include "pruning/solvers/problem.h"

namespace laptopdiff::pruning {

struct QuadraticOptions {
  int restarts = 16;                 // of the local search
  std::uint64_t seed = 0;            // of the restarts
  std::int64_t max_nodes = 200'000;  // of the tree; 0 = local search only, with the bound of no tree (-infinity)
  KnapsackOptions knapsack = {};     // for the start
};

// Loss = quadratic_loss of the problem. Never above that of solve_knapsack's choice. The gap is loss - bound; it is 0,
// and proven_optimal set, where the tree was exhausted. Deterministic. Throws as solve_knapsack; input_error where the
// problem has no form.
Solution solve_quadratic(const Problem& problem, const QuadraticOptions& options = {});

}  // namespace laptopdiff::pruning
