// A problem as a sequence of independent stages, one state of which is chosen each, and the linear relaxation's bound
// on what the stages that are still to come will cost.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "pruning/solvers/front.h"
#include "pruning/solvers/problem.h"

namespace laptopdiff::pruning {

// One independent part of a choice. A free item outside groups with an `all` is a stage {keep, remove}; such a group
// is one stage with the front of its members' subsets.
struct Stage {
  StateSet options;
  // For a group also its parts, each member {keep, remove} as far as it is free (even where one dominates the other:
  // a member that is not worth removing alone may be worth it for `all`). Where options are many, growing a front
  // member by member is much less work than adding every option to every state.
  std::vector<StateSet> members;
  StateSet all;  // one state; not part of `members`' sums
};

// Freed amounts are cut off at `ceiling`. Throws resource_error where a group's front outgrows max_states.
std::vector<Stage> make_stages(const Problem& problem, std::span<const double> ceiling, std::size_t max_states);

// Grows `front` by a group: the subsets of members that keep one, told apart by the first member they keep, and `all`.
// `step(part, from, option, j)` returns `part` merged with `from` + option for what is left after member j
// (members.size() for `all`).
template <typename Step>
StateSet grow_by_members(const StateSet& front, const Stage& group, const Step& step) {
  StateSet keeping{front.dims, front.words, {}, {}, {}, {}};
  StateSet before =
      empty_choice(front.dims, 64 * front.words);  // all members so far removed; empty where one must stay
  for (std::size_t j = 0; j < group.members.size(); ++j) {
    const StateSet& member = group.members[j];
    StateSet next{front.dims, front.words, {}, {}, {}, {}};
    StateSet after = next;
    for (std::size_t o = 0; o < member.size(); ++o) {
      next = step(std::move(next), keeping, member, o, j);
      if (member.count[o] > 0) {
        if (before.size() > 0) after = sum_of(before, member, o);
      } else if (before.size() > 0) {
        next = step(std::move(next), front, before, 0, j);
      }
    }
    keeping = std::move(next);
    before = std::move(after);
  }
  return before.size() > 0 ? step(std::move(keeping), front, group.all, 0, group.members.size()) : keeping;
}

[[noreturn]] void throw_too_many_states(std::size_t states, std::size_t max_states);

// The options of the stages from `first` on.
std::vector<const StateSet*> options_from(const std::vector<Stage>& stages, std::size_t first);

// The least loss at which a run of stages frees a weighted sum of at least `need`, choices relaxed to mixtures: the
// lower convex hull of every stage, and all their segments taken in the order of their slopes (the linear relaxation
// of the multiple-choice knapsack; Kellerer, Pferschy and Pisinger, "Knapsack Problems", section 11.2).
class HullBound {
 public:
  // Weights: one a budget, >= 0.
  HullBound(std::span<const StateSet* const> stages, std::vector<double> weights);
  // +inf where not even everything together frees enough.
  double loss_to_free(double need) const;
  // Loss per weighted unit freed at `need`: the dual of the budget.
  double slope_at(double need) const;
  double weigh(std::span<const double> amounts) const;

 private:
  std::vector<double> weights_;
  double base_loss_ = 0, base_freed_ = 0;  // of the least-loss option everywhere
  std::vector<double> slopes_;             // [S] ascending
  std::vector<double> freed_before_;       // [S + 1] beyond the base, running sums
  std::vector<double> loss_before_;        // [S + 1]
};

// The Lagrangian's least loss + weights x (need - freed) over all stages; every option's excess over its stage's least.
struct Regrets {
  double bound = 0;
  std::vector<std::vector<double>> of_option;  // [stage][option] >= 0
};
Regrets regrets(const std::vector<Stage>& stages, std::span<const double> weights, std::span<const double> need);

// Multipliers of all budgets that nearly maximise the Lagrangian bound (subgradient ascent; any value is valid).
std::vector<double> dual_weights(const std::vector<Stage>& stages, std::span<const double> need);

}  // namespace laptopdiff::pruning
