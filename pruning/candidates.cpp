#include "pruning/candidates.h"

#include <algorithm>
#include <set>

#include "pruning/knapsack.h"
#include "pruning/local_search.h"

namespace laptopdiff::pruning {

namespace {

constexpr int kRestarts = 8;

double predicted(const Problem& problem, const Mask& mask) {
  return problem.form ? quadratic_loss(problem, mask) : linear_loss(problem, mask);
}

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
  const Mask start = solve_knapsack(problem).removed;
  if (share == 0 || !problem.form) return start;
  return search_locally(make_binary_form(with_interactions(problem, share)), start, kRestarts, 0);
}

std::vector<CandidateMask> neighbours(const Problem& model, const Mask& mask) {
  const auto fixed = decisions(model);
  std::set<Mask> seen{mask};
  std::vector<CandidateMask> found;
  for (std::size_t i = 0; i < mask.size(); ++i) {
    if (fixed[i]) continue;
    Problem flipped = model;
    flipped.fixed.push_back({static_cast<int>(i), mask[i] != 0 ? Decision::keep : Decision::remove});
    Mask start = mask;
    start[i] = mask[i] != 0 ? 0 : 1;
    const BinaryForm form = make_binary_form(flipped);
    const auto feasible = mend(form, start);
    if (!feasible) continue;
    Mask best = improve(form, *feasible);
    if (!seen.insert(best).second) continue;
    found.push_back({best, (mask[i] != 0 ? "keeps " : "removes ") + model.items[i].name, predicted(model, best)});
  }
  std::stable_sort(found.begin(), found.end(),
                   [](const CandidateMask& a, const CandidateMask& b) { return a.predicted < b.predicted; });
  return found;
}

}  // namespace laptopdiff::pruning
