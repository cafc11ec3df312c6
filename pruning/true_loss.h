// The true output loss of sets of removals, measured on a calibration set through the engine. Audits, verified masks
// and exact greedy all ask this one meter.
#pragma once

#include <optional>

#include "pruning/engine.h"
#include "pruning/solvers/search.h"
#include "unet/spec.h"

namespace laptopdiff::pruning {

struct MeterOptions {
  unet::Shell shell = unet::Shell::drop;
  std::int64_t batch = 0;  // samples at once; 0: by the memory limit
  std::int64_t few = 0;    // how many Samples::few are, at most; 0: an eighth of all, at least 4
  EngineOptions engine;
};

struct MeasuredLoss {
  double loss = 0;  // mean over samples and elements of (eps(without the set) - eps(all))^2; may be not finite
  double standard_error = 0;
};

class LossMeter {
 public:
  // All are kept by reference and must outlive the meter.
  LossMeter(const unet::Program& base, const unet::Executor& executor, const unet::Inputs& inputs,
            MeterOptions options);

  // One entry a set, in order; `what` is told on the progress line. A few samples stand for all by the first set that
  // was measured on all: they are picked along the timesteps, half in proportion to its loss on each sample and half
  // evenly, and a set's loss is that first set's, times the ratio of the two weighted sums over the few (a ratio
  // estimate from systematic sampling; losses differ by orders of magnitude between timesteps, ratios much less).
  // Without such a set, all samples are measured. Throws Error(non_finite) where the base's own output is not finite,
  // Error(interrupted) at a signal.
  std::vector<MeasuredLoss> measure(const std::vector<std::vector<unet::Removal>>& sets, const std::string& what,
                                    Samples samples = Samples::all);
  std::vector<MeasuredLoss> measure(const std::vector<unet::Program>& variants, const std::string& what,
                                    Samples samples = Samples::all);

  // Of all samples that the few are.
  double few_share() const;

  // What all measurements so far cost: MACs over those of one forward of the base, for every sample of the set.
  double forwards() const { return forwards_; }
  // The same where every set had been run from conv_in to conv_out by itself.
  double naive_forwards() const { return naive_forwards_; }

 private:
  // Some of the samples, with the base's outputs on them as soon as they are known, a batch each.
  struct Part {
    unet::Inputs inputs;
    std::vector<at::Tensor> references;
    at::Tensor weights;  // [N] in double; a set's loss is the weighted sum over the samples
  };
  std::int64_t batch_for(std::size_t variants) const;
  void pick_few(const at::Tensor& losses);

  const unet::Program& base_;
  const unet::Executor& executor_;
  MeterOptions options_;
  Part all_;
  std::optional<Part> few_;
  std::int64_t batch_ = 0;  // chosen at the first call and kept: references are by batch
  double forwards_ = 0, naive_forwards_ = 0;
};

}  // namespace laptopdiff::pruning
