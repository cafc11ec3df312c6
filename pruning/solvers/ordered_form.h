// The quadratic form in the order in which a tree fixes its variables.
#pragma once

#include <span>
#include <vector>

#include "pruning/solvers/binary_form.h"

namespace laptopdiff::pruning {

// A form with its variables in branching order, and one budget that every feasible choice meets.
struct OrderedForm {
  BinaryForm form;           // in branching order; a group's `whole` comes before its members
  std::vector<double> cost;  // [size] weighted sum of the costs
  double need = 0;           // of the needs; 0 where nothing is needed
  double most_loss = 0;      // scale of the losses, for tolerances
};

// Variables whose domain fixes them first, then each group's `whole`, then members that must go, then the rest; within
// a kind by descending urgency.
std::vector<int> branching_order(const BinaryForm& form, std::span<const double> urgency);

// Order: as above. Weights: one a budget, >= 0.
OrderedForm reorder(const BinaryForm& form, const std::vector<int>& order, std::span<const double> weights);

}  // namespace laptopdiff::pruning
