// Masks worth measuring, from models of the loss that disagree with each other.
//
// The Gram matrix's off-diagonal part is scaled by a share: 1 is the Gram model, 0 the additive one. True losses lie
// between the two or beside them, differently for every network, so the choices of several shares, and what is close
// to them, are better candidates than many of one.
#pragma once

#include <string>

#include "pruning/binary_form.h"
#include "pruning/problem.h"

namespace laptopdiff::pruning {

struct CandidateMask {
  Mask removed;
  std::string source;
  double predicted = 0;  // by the model that it comes from
};

// The problem with what interacts scaled by `share`. Without a quadratic form it is the same for all.
Problem with_interactions(const Problem& problem, double share);

// What the model at this share takes for the best: the exact knapsack at 0, a local search else.
Mask best_of_model(const Problem& problem, double share);

// Good choices beside `mask`: for each layer that may change, the choice with just this one decided the other way and
// all others free again, improved by local search. By predicted loss, best first; all different, none of them `mask`.
std::vector<CandidateMask> neighbours(const Problem& model, const Mask& mask);

}  // namespace laptopdiff::pruning
