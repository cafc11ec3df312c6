// From scores and a budget to the problem that a solver takes, and from its mask back to removals. Knows no torch.
#pragma once

#include <string>
#include <vector>

#include "pruning/resources.h"
#include "pruning/scores.h"
#include "pruning/solvers/problem.h"

namespace laptopdiff::pruning {

// What a solver is asked: what of the base is kept, at most, in one resource.
struct KeepBudget {
  Resource resource = Resource::params;
  double kept = 0;  // absolute amount
};

// Parses "params=0.5,macs=0.6" (shares), "params=430M,latency=250ms,activations=1.5GiB" (amounts; whole numbers above 1
// need no unit) or "params=@bk-sdm-tiny" (what that preset keeps). Throws Error(usage).
std::vector<KeepBudget> parse_budgets(const std::string& text, const CostModel& costs);

// The problem of choosing layers of the base under the budgets. Units without a score are kept. `must_keep` and
// `must_remove` are layer names. Throws Error(usage) on unknown layers.
Problem make_problem(const Scores& scores, const CostModel& costs, const std::vector<KeepBudget>& budgets,
                     const std::vector<std::string>& must_keep = {}, const std::vector<std::string>& must_remove = {});

// The removals that a mask over `scores.units` means.
std::vector<unet::Removal> removals_of(const Scores& scores, const Mask& mask);

}  // namespace laptopdiff::pruning
