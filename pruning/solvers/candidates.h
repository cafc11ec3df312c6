// Masks worth measuring: the choices of models of the loss that disagree with each other, and what is near a mask.
#pragma once

#include <functional>

#include "pruning/solvers/problem.h"

namespace laptopdiff::pruning {

// The problem with the Gram matrix's off-diagonal part scaled: 1 is the Gram model, 0 the additive one. True losses lie
// between the two or beside them, differently for every network. Without a quadratic form it is the same for all.
Problem with_interactions(const Problem& problem, double share);

// What the model at this share takes for the best: the exact knapsack at 0, a local search else.
Mask best_of_model(const Problem& problem, double share);

// Visits every mask that meets the budgets one small move from `mask`: an item back, one swapped for one, two for one,
// one for two. Items that are fixed do not move.
void for_each_neighbour(const Problem& problem, const Mask& mask, const std::function<void(const Mask&)>& visit);

}  // namespace laptopdiff::pruning
