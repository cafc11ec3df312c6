// From scores and a budget to the problem that a solver takes, and from its mask back to removals. Knows no torch.
#pragma once

#include <string>
#include <vector>

#include "pruning/problem.h"
#include "pruning/scores.h"

namespace laptopdiff::pruning {

// What a solver is asked: the share of the base that is kept, at most, in one resource.
enum class Resource { params, macs };
struct KeepBudget {
  Resource resource = Resource::params;
  double kept = 0;  // absolute amount
};

// Parses "params=0.5,macs=0.6" (shares), "params=430000000" (absolute, above 1) or "params=@bk-sdm-tiny" (what that
// preset keeps). Throws Error(usage).
std::vector<KeepBudget> parse_budgets(const std::string& text, const unet::Program& base);

// The problem of choosing layers of `base` under the budgets. Units without a score are kept. `must_keep` and
// `must_remove` are layer names. Throws Error(usage) on unknown layers.
Problem make_problem(const Scores& scores, const unet::Program& base, const std::vector<KeepBudget>& budgets,
                     const std::vector<std::string>& must_keep = {}, const std::vector<std::string>& must_remove = {});

// The removals that a mask over `scores.units` means.
std::vector<unet::Removal> removals_of(const Scores& scores, const Mask& mask);

}  // namespace laptopdiff::pruning
