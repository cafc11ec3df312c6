#include "pruning/solvers/candidates.h"

#include <algorithm>

#include "pruning/solvers/knapsack.h"
#include "pruning/solvers/local_search.h"

namespace laptopdiff::pruning {

namespace {

constexpr int kRestarts = 8;
constexpr std::size_t kMostForTriples = 48;  // movable items: beyond, the moves of three are too many to look through

}  // namespace

Problem with_interactions(const Problem& problem, double share) {
  Problem model = problem;
  if (!model.form) return model;
  QuadraticForm& form = *model.form;
  for (int i = 0; i < form.rows; ++i) {
    for (int j = 0; j < form.rows; ++j) {
      if (i != j) form.values[static_cast<std::size_t>(i) * form.rows + j] *= share;
    }
  }
  return model;
}

Mask best_of_model(const Problem& problem, double share) {
  Mask start = solve_knapsack(problem).removed;
  if (share == 0 || !problem.form) return start;
  return search_locally(make_binary_form(with_interactions(problem, share)), start, kRestarts, 0);
}

void for_each_neighbour(const Problem& problem, const Mask& mask, const std::function<void(const Mask&)>& visit) {
  const auto fixed = decisions(problem);
  std::vector<std::size_t> movable;
  for (std::size_t i = 0; i < mask.size(); ++i) {
    if (!fixed[i]) movable.push_back(i);
  }
  Mask trial = mask;
  const auto flip = [&](std::size_t i) { trial[i] = trial[i] != 0 ? 0 : 1; };
  const auto offer = [&] {
    if (meets(problem, trial)) visit(trial);
  };
  for (const std::size_t i : movable) {
    flip(i);
    if (mask[i] != 0) offer();
    for (const std::size_t j : movable) {
      if (j >= i) break;
      flip(j);
      if (mask[i] != mask[j]) offer();
      // Two of one kind (i and j) and one of the other.
      for (const std::size_t k : movable) {
        if (movable.size() > kMostForTriples || mask[i] != mask[j] || mask[k] == mask[i]) continue;
        flip(k);
        offer();
        flip(k);
      }
      flip(j);
    }
    flip(i);
  }
}

}  // namespace laptopdiff::pruning
