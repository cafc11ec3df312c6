#include <algorithm>
#include <cmath>
#include <limits>

#include "pruning/solvers/search.h"
#include "runtime/error.h"

namespace laptopdiff::pruning {

namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

struct Candidate {
  std::size_t item;
  double ratio;  // loss added per share of the needs met
  double loss;
};

// The layers whose removal helps, best first.
std::vector<Candidate> measure_round(const Problem& problem, const Mask& removed,
                                     const std::vector<std::optional<Decision>>& fixed, const std::vector<double>& need,
                                     double loss, const TrueLosses& measure) {
  const double share = share_met(freed_by(problem, removed), need);
  std::vector<Candidate> candidates;
  std::vector<Mask> masks;
  for (std::size_t i = 0; i < removed.size(); ++i) {
    if (removed[i] != 0 || fixed[i]) continue;
    Mask mask = removed;
    mask[i] = 1;
    const double gained = share_met(freed_by(problem, mask), need) - share;
    if (!(gained > 0)) continue;
    candidates.push_back({i, gained, 0});
    masks.push_back(std::move(mask));
  }
  const std::vector<double> losses = measure(masks, Samples::all);
  for (std::size_t c = 0; c < candidates.size(); ++c) {
    candidates[c].loss = losses[c];
    candidates[c].ratio = std::isfinite(losses[c]) ? (losses[c] - loss) / candidates[c].ratio : kInfinity;
  }
  std::erase_if(candidates, [](const Candidate& c) { return c.ratio == kInfinity; });
  std::stable_sort(candidates.begin(), candidates.end(),
                   [](const Candidate& a, const Candidate& b) { return a.ratio < b.ratio; });
  return candidates;
}

}  // namespace

Solution exact_greedy(const Problem& problem, const TrueLosses& measure, const ExactGreedyOptions& options) {
  validate(problem);
  check_reachable(problem);
  if (options.per_round < 1)
    throw runtime::usage_error("solve: exact_greedy: ", options.per_round, " layers a round, expected 1 or more");
  const auto fixed = decisions(problem);
  const std::vector<double> need = requirements(problem);
  Solution solution;
  solution.removed.assign(problem.items.size(), 0);
  for (std::size_t i = 0; i < fixed.size(); ++i) solution.removed[i] = fixed[i] == Decision::remove ? 1 : 0;
  const bool any = std::any_of(solution.removed.begin(), solution.removed.end(), [](auto bit) { return bit != 0; });
  solution.loss = any ? measure({solution.removed}, Samples::all).front() : 0;
  while (!meets(problem, solution.removed)) {
    const auto candidates = measure_round(problem, solution.removed, fixed, need, solution.loss, measure);
    if (candidates.empty()) {
      throw runtime::usage_error("solve: exact_greedy: no further layer helps to meet the budgets, though they can be ",
                                 "met; use the knapsack solver");
    }
    int taken = 0;
    for (const Candidate& candidate : candidates) {
      if (taken == options.per_round || meets(problem, solution.removed)) break;
      solution.removed[candidate.item] = 1;
      solution.loss = candidate.loss;
      ++taken;
    }
    if (taken > 1) solution.loss = measure({solution.removed}, Samples::all).front();
  }
  solution.freed = freed_by(problem, solution.removed);
  solution.bound = -kInfinity;
  return solution;
}

}  // namespace laptopdiff::pruning
