// AdamW with averaged weights, as plain state: names to tensors, and functions on them.
//
// The update is ATen's fused AdamW (one kernel over all tensors). The whole state of training is this and the step
// number; everything random is a function of the step.
#pragma once

#include <cstdint>

#include "distill/config.h"
#include "runtime/tensors.h"

namespace laptopdiff::distill {

using runtime::TensorMap;

struct TrainState {
  std::int64_t step = 0;  // updates done
  TensorMap weights;      // f32 leaves that require grad
  TensorMap averaged;     // EMA; empty where ema_decay is 0
  TensorMap first_moment, second_moment;
};

// State before the first update: copies of `weights` in f32 on `device`.
TrainState initial_state(const TensorMap& weights, const OptimizerConfig& config, at::Device device);

// Learning rate of update `step` (from 0) of `steps`.
double learning_rate(const OptimizerConfig& config, std::int64_t step, std::int64_t steps);

// EMA decay after update n (from 1): min(ema_decay, (1 + s) / (10 + s)) with s = n - 1, and 0 for n = 1.
double ema_decay(const OptimizerConfig& config, std::int64_t n);

// Clips the gradients, updates weights, moments and average, zeroes the gradients, and advances `step`. Returns the
// gradient norm before clipping, as a tensor on the device (no wait).
at::Tensor update(TrainState& state, const OptimizerConfig& config, std::int64_t steps);

// One atomic file; `key` identifies the run.
void save_state(const std::filesystem::path& path, const TrainState& state, const std::string& key);
// Throws Error(bad_input) where the file is damaged or of another run.
TrainState load_state(const std::filesystem::path& path, const std::string& key, at::Device device);

}  // namespace laptopdiff::distill
