// The one-shot criterion (LAPTOP-Diff): how much the predicted noise changes when one unit is removed.
//
//   d_i = eps(without unit i) - eps(all)          on the same inputs
//   s_i = mean over samples and elements of d_i^2
//   G_ij = mean over samples and elements of d_i d_j        (no further forward pass; the diagonal is s)
//
// A Transformer2DModel with several blocks also gets a row for removing them all with its shell.
#pragma once

#include "pruning/engine.h"
#include "pruning/scores.h"

namespace laptopdiff::pruning {

struct OutputLossOptions {
  unet::Shell shell = unet::Shell::drop;
  std::int64_t batch = 0;  // samples evaluated at once; 0: as many as the memory limit allows, at most 32
  EngineOptions engine;
};

struct OutputLossReport {
  double forwards_saved = 0;         // naive forwards' worth of MACs over the plan's
  std::int64_t macs_per_sample = 0;  // of the plan
};

// The whole criterion within this process, nothing written down. Fills units, scores, shells, gram and samples of a
// Scores. Non-finite outputs of single units give scores without a value and a warning; a non-finite output of the
// whole model throws Error(non_finite); a signal stops it with Error(stopped).
Scores score_output_loss(const unet::Program& base, const unet::Executor& executor, const unet::Inputs& inputs,
                         const OutputLossOptions& options, OutputLossReport* report = nullptr);

// mean over elements of (outputs[v] - reference)^2, one row a variant, one column a sample: [V, B] in double.
at::Tensor squared_differences(const at::Tensor& reference, const std::vector<at::Tensor>& outputs);

}  // namespace laptopdiff::pruning
