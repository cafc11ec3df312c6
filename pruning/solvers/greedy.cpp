#include "pruning/solvers/greedy.h"

#include <limits>

#include "runtime/error.h"

namespace laptopdiff::pruning {

namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

// The item whose removal adds the least loss per share of the needs met; -1 where none helps.
int next_item(const Problem& problem, const Mask& removed, const std::vector<std::optional<Decision>>& decision,
              const std::vector<double>& need) {
  const double loss = linear_loss(problem, removed);
  const double share = share_met(freed_by(problem, removed), need);
  int best = -1;
  double best_ratio = kInfinity;
  Mask trial = removed;
  for (std::size_t i = 0; i < removed.size(); ++i) {
    if (removed[i] || decision[i] == Decision::keep) continue;
    trial[i] = 1;
    const double more_loss = linear_loss(problem, trial) - loss;
    const double more_share = share_met(freed_by(problem, trial), need) - share;
    trial[i] = 0;
    // A removal that lowers the loss costs nothing, whatever it frees, unless it undoes what was freed.
    const double ratio = more_share > 0 ? more_loss / more_share : (more_loss < 0 && more_share == 0 ? 0.0 : kInfinity);
    if (ratio < best_ratio) {
      best_ratio = ratio;
      best = static_cast<int>(i);
    }
  }
  return best;
}

bool is_met(const std::vector<double>& freed, const std::vector<double>& need) {
  for (std::size_t d = 0; d < need.size(); ++d) {
    if (freed[d] < need[d]) return false;
  }
  return true;
}

}  // namespace

Solution solve_greedy(const Problem& problem) {
  validate(problem);
  check_reachable(problem);
  const auto decision = decisions(problem);
  const std::vector<double> need = requirements(problem);
  Solution solution;
  solution.removed.assign(problem.items.size(), 0);
  for (std::size_t i = 0; i < decision.size(); ++i) solution.removed[i] = decision[i] == Decision::remove;
  while (true) {
    const double loss = linear_loss(problem, solution.removed);
    const bool met = is_met(freed_by(problem, solution.removed), need);
    const int item = next_item(problem, solution.removed, decision, need);
    if (item < 0 && !met) {
      throw runtime::usage_error("solve: greedy: no further layer helps to meet the budgets, though they can be met; ",
                                 "use the knapsack solver");
    }
    if (item < 0) break;
    solution.removed[item] = 1;
    if (met && linear_loss(problem, solution.removed) >= loss) {
      solution.removed[item] = 0;
      break;
    }
  }
  solution.freed = freed_by(problem, solution.removed);
  solution.loss = linear_loss(problem, solution.removed);
  solution.bound = -kInfinity;
  return solution;
}

}  // namespace laptopdiff::pruning
