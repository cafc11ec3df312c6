// The true output loss of sets of removals, measured on a calibration set through the engine. Audits, verified masks
// and exact greedy all ask this one meter.
#pragma once

#include "pruning/engine.h"
#include "unet/spec.h"

namespace laptopdiff::pruning {

struct MeterOptions {
  unet::Shell shell = unet::Shell::drop;
  std::int64_t batch = 0;  // samples at once; 0: by the memory limit
  EngineOptions engine;
};

struct MeasuredLoss {
  double loss = 0;  // mean over samples and elements of (eps(without the set) - eps(all))^2; may be not finite
  double standard_error = 0;
};

class LossMeter {
 public:
  // All are kept by reference and must outlive the meter.
  LossMeter(const unet::Program& base, const unet::Executor& executor, const unet::Inputs& inputs, MeterOptions options)
      : base_(base), executor_(executor), inputs_(inputs), options_(options) {}

  // One entry a set, in order; `what` is told on the progress line. Throws Error(non_finite) where the base's own
  // output is not finite, Error(interrupted) at a signal.
  std::vector<MeasuredLoss> measure(const std::vector<std::vector<unet::Removal>>& sets, const std::string& what);
  std::vector<MeasuredLoss> measure(const std::vector<unet::Program>& variants, const std::string& what);

  // What all measurements so far cost: MACs over those of one forward of the base, for every sample of the set.
  double forwards() const { return forwards_; }
  // The same where every set had been run from conv_in to conv_out by itself.
  double naive_forwards() const { return naive_forwards_; }

 private:
  const unet::Program& base_;
  const unet::Executor& executor_;
  const unet::Inputs& inputs_;
  MeterOptions options_;
  double forwards_ = 0, naive_forwards_ = 0;
  std::vector<at::Tensor> references_;  // the base's outputs, a batch each, once they are known
  std::int64_t reference_batch_ = 0;
};

}  // namespace laptopdiff::pruning
