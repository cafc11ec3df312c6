// Searches that ask for the true loss of masks. They know no model: the losses come from a callback, which the command
// line makes of an engine and a calibration set (true_loss.h).
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "pruning/problem.h"

namespace laptopdiff::pruning {

// The true losses of masks, one a mask; not finite where the output was not.
using TrueLosses = std::function<std::vector<double>(const std::vector<Mask>& masks)>;

struct ExactGreedyOptions {
  int per_round = 1;  // layers that go a round, before the rest is measured again
};

// Greedy with re-scoring: every round measures each layer that is left on top of what is removed already, and takes
// the one with the least true loss added per share of the budgets' needs met, until all are met. What the one-shot
// criteria save is this search's forwards, about half the square of the number of layers.
// Solution::loss is the true loss. Throws as validate(); usage_error for impossible budgets and dead ends.
Solution exact_greedy(const Problem& problem, const TrueLosses& measure, const ExactGreedyOptions& options = {});

struct VerifiedMask {
  Mask removed;
  std::string source;
  double loss = 0;  // true; not finite where the output was not
};
struct Verification {
  Solution solution;                // the best of the masks; its loss is the true loss
  std::vector<VerifiedMask> masks;  // in the order in which they were measured
};

// Measures at most `most` masks and keeps the best: `plain` (a solver's choice), the choices of models of the loss
// between additive and Gram (candidates.h), then in rounds the neighbours of the best so far, by the model that fits
// what was measured. Never worse than `plain`. Throws as validate(), and usage_error where most < 1.
Verification verify(const Problem& problem, const Mask& plain, int most, const TrueLosses& measure);

}  // namespace laptopdiff::pruning
