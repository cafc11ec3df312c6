// Searches that ask for the true loss of masks. They know no model: the losses come from a callback, which the command
// line makes of an engine and a calibration set (true_loss.h).
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "pruning/solvers/problem.h"

namespace laptopdiff::pruning {

// A few of the calibration samples, chosen by the first mask that was measured on all of them, rank masks nearly as all
// do, at a fraction of the work.
enum class Samples { all, few };

// The true losses of masks, one a mask; not finite where the output was not.
using TrueLosses = std::function<std::vector<double>(const std::vector<Mask>& masks, Samples samples)>;

struct ExactGreedyOptions {
  int per_round = 1;  // layers that go a round, before the rest is measured again
};

// Greedy with re-scoring: every round measures each layer that is left on top of what is removed already, and takes
// the one with the least true loss added per share of the budgets' needs met, until all are met. What the one-shot
// criteria save is this search's forwards, about half the square of the number of layers.
// Solution::loss is the true loss. Throws as validate(); usage_error for impossible budgets and dead ends.
Solution exact_greedy(const Problem& problem, const TrueLosses& measure, const ExactGreedyOptions& options = {});

struct VerifyOptions {
  double most = 8;       // work: as many masks on all samples
  double few_share = 1;  // of all samples that `few` are
};

struct VerifiedMask {
  Mask removed;
  std::string source;
  double loss = 0;  // true, on all samples; not finite where the output was not
};
struct Verification {
  Solution solution;                // the best of the masks; its loss is the true loss
  std::vector<VerifiedMask> masks;  // measured on all samples, `plain` first
  std::size_t explored = 0;         // masks measured on a few samples before
};

// Measures masks and keeps the best. First `plain` (a solver's choice) on all samples. Then, on a few samples: the
// choices of models of the loss between additive and Gram (candidates.h), and round by round the neighbours of the best
// so far that look best to a surrogate which learns from what was measured (surrogate.h). Then the best of these on
// all; where `most` is below 3, the search itself is on all. The work of both is that of `most` masks on all samples,
// or less. Never worse than `plain` on these samples.
// Throws as validate(), and usage_error where `most` is below 1.
Verification verify(const Problem& problem, const Mask& plain, const VerifyOptions& options, const TrueLosses& measure);

}  // namespace laptopdiff::pruning
