// A model of the loss that learns from measured masks: log(loss) = log(x'Gx) + b + sum of w_i over what is removed.
//
// The Gram matrix sees the interactions to first order; what it misses is mostly that layers which stand in for each
// other look cheap one at a time. Around a good mask that is a weight a layer, which a few dozen measurements tell.
#pragma once

#include "pruning/solvers/problem.h"

namespace laptopdiff::pruning {

struct MeasuredMask {
  Mask removed;
  double loss = 0;  // not finite, or not positive: left out
};

class Surrogate {
 public:
  // Ridge regression; with nothing measured, it is the logarithm of the prediction. `problem` must outlive it.
  Surrogate(const Problem& problem, const std::vector<MeasuredMask>& measured);
  // The logarithm of the expected loss.
  double operator()(const Mask& removed) const;

 private:
  double prior(const Mask& removed) const;

  const Problem& problem_;
  double offset_ = 0;
  std::vector<double> weights_;
};

}  // namespace laptopdiff::pruning
