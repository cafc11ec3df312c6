// The three-part distillation loss: task + output + balanced features.
#pragma once

#include <ATen/core/Tensor.h>

#include <string>
#include <vector>

#include "distill/config.h"
#include "distill/taps.h"
#include "unet/executor.h"

namespace laptopdiff::distill {

// A network's output with its hidden states at the tap points.
struct Features {
  at::Tensor output;
  std::vector<at::Tensor> taps;  // one a pair
};

enum class Side { teacher, student };
// Runs the network and collects the points of that side.
Features run_with_taps(const unet::Executor& network, const unet::Inputs& inputs, const std::vector<TapPair>& pairs,
                       Side side);

struct Losses {
  at::Tensor total;                  // what is minimised; carries the gradient
  at::Tensor task, output, feature;  // weighted parts, detached
  at::Tensor raw;                    // [L]: mean (f_S - f_T)^2 of every tap, detached
  at::Tensor balanced;               // [L]: after balancing, detached
};

// Features meet in f32. `task_weights`, where defined, weighs the samples of the task term [B] (min-SNR).
// Throws runtime::Error(bad_input) where a pair's shapes differ, naming it.
Losses compute_losses(const LossConfig& config, const Features& student, const Features& teacher,
                      const std::vector<TapPair>& pairs, const at::Tensor& target, const at::Tensor& task_weights);

}  // namespace laptopdiff::distill
