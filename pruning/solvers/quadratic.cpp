#include "pruning/solvers/quadratic.h"

#include <limits>

#include "pruning/solvers/binary_form.h"
#include "pruning/solvers/branch_and_bound.h"
#include "pruning/solvers/local_search.h"
#include "runtime/error.h"

namespace laptopdiff::pruning {

namespace {

// The problem with the diagonal as gains: what is left of the form where nothing interacts.
Problem without_interactions(const Problem& problem) {
  Problem result = problem;
  const auto take_diagonal = [&](Item& item) {
    if (item.row) item.gain = problem.form->at(*item.row, *item.row);
  };
  for (Item& item : result.items) take_diagonal(item);
  for (Group& group : result.groups) {
    if (group.all) take_diagonal(*group.all);
  }
  return result;
}

bool same_gains(const Problem& a, const Problem& b) {
  bool same = true;
  for (std::size_t i = 0; i < a.items.size(); ++i) same = same && a.items[i].gain == b.items[i].gain;
  for (std::size_t g = 0; g < a.groups.size(); ++g) {
    same = same && (!a.groups[g].all || a.groups[g].all->gain == b.groups[g].all->gain);
  }
  return same;
}

// The better, by the quadratic loss, of the knapsack's choices for the diagonal and for the gains as they are.
Mask knapsack_start(const Problem& problem, const KnapsackOptions& options) {
  const Problem diagonal = without_interactions(problem);
  Mask by_diagonal = solve_knapsack(diagonal, options).removed;
  if (same_gains(problem, diagonal)) return by_diagonal;
  Mask by_gains = solve_knapsack(problem, options).removed;
  return quadratic_loss(problem, by_gains) < quadratic_loss(problem, by_diagonal) ? by_gains : by_diagonal;
}

}  // namespace

Solution solve_quadratic(const Problem& problem, const QuadraticOptions& options) {
  validate(problem);
  if (!problem.form) {
    throw runtime::input_error(
        "solve: the quadratic solver needs a Gram matrix, and the scores have none; score with "
        "the criterion `gram`, or use the knapsack solver");
  }
  const BinaryForm form = make_binary_form(problem);
  const Mask start = search_locally(form, knapsack_start(problem, options.knapsack), options.restarts, options.seed);
  Solution solution;
  solution.removed = start;
  solution.bound = -std::numeric_limits<double>::infinity();
  if (options.max_nodes > 0) {
    const TreeResult tree = branch_and_bound(problem, form, form.variables(start), options.max_nodes);
    solution.removed = form.removed(tree.y);
    solution.bound = tree.bound;
    solution.proven_optimal = tree.proven;
  }
  solution.freed = freed_by(problem, solution.removed);
  solution.loss = quadratic_loss(problem, solution.removed);
  if (solution.proven_optimal) solution.bound = solution.loss;
  return solution;
}

}  // namespace laptopdiff::pruning
