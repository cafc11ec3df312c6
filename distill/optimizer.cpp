#include "distill/optimizer.h"

#include <torch/types.h>

#include <algorithm>
#include <cmath>
#include <numbers>

#include "runtime/error.h"

namespace laptopdiff::distill {
namespace {

using runtime::cat;
using runtime::input_error;

std::vector<at::Tensor> values(const TensorMap& map) {
  std::vector<at::Tensor> list;
  for (const auto& [name, tensor] : map) list.push_back(tensor);
  return list;
}

std::vector<at::Tensor> gradients(const TensorMap& weights) {
  std::vector<at::Tensor> list;
  for (const auto& [name, tensor] : weights)
    list.push_back(tensor.grad().defined() ? tensor.grad() : at::zeros_like(tensor));
  return list;
}

// Scales the gradients so that their joint norm is at most `most`; stays on the device.
at::Tensor clip(const std::vector<at::Tensor>& grads, double most) {
  const at::Tensor norm = at::stack(at::_foreach_norm(grads)).norm();
  if (most > 0) at::_foreach_mul_(grads, (most / (norm + 1e-6)).clamp_max(1.0));
  return norm;
}

struct Section {
  const char* prefix;
  TensorMap TrainState::*map;
};
constexpr Section kSections[] = {{"weights/", &TrainState::weights},
                                 {"averaged/", &TrainState::averaged},
                                 {"first_moment/", &TrainState::first_moment},
                                 {"second_moment/", &TrainState::second_moment}};

}  // namespace

TrainState initial_state(const TensorMap& weights, const OptimizerConfig& config, at::Device device) {
  TrainState state;
  for (const auto& [name, tensor] : weights) {
    const at::Tensor own = tensor.detach().to(device, at::kFloat, /*non_blocking=*/false, /*copy=*/true);
    if (config.ema_decay > 0) state.averaged[name] = own.clone();
    state.first_moment[name] = at::zeros_like(own);
    state.second_moment[name] = at::zeros_like(own);
    state.weights[name] = own.set_requires_grad(true);
  }
  return state;
}

double learning_rate(const OptimizerConfig& config, std::int64_t step, std::int64_t steps) {
  const double warm =
      config.warmup > 0 ? std::min(1.0, static_cast<double>(step + 1) / static_cast<double>(config.warmup)) : 1.0;
  const double span = static_cast<double>(std::max<std::int64_t>(1, steps - config.warmup));
  const double done = std::clamp(static_cast<double>(step - config.warmup) / span, 0.0, 1.0);
  double decay = 1;
  if (config.schedule == "linear") decay = 1 - done;
  if (config.schedule == "cosine") decay = 0.5 * (1 + std::cos(std::numbers::pi * done));
  return config.learning_rate * warm * decay;
}

double ema_decay(const OptimizerConfig& config, std::int64_t n) {
  if (n <= 1) return 0;
  const auto s = static_cast<double>(n - 1);
  return std::min(config.ema_decay, (1 + s) / (10 + s));
}

at::Tensor update(TrainState& state, const OptimizerConfig& config, std::int64_t steps) {
  const at::NoGradGuard no_grad;
  std::vector<at::Tensor> weights = values(state.weights), grads = gradients(state.weights),
                          first = values(state.first_moment), second = values(state.second_moment);
  const at::Tensor norm = clip(grads, config.clip_norm);
  const double rate = learning_rate(config, state.step, steps);
  ++state.step;
  // The fused kernel wants the step number as a tensor for each parameter.
  const at::Tensor number =
      at::full({}, static_cast<double>(state.step), weights.front().options().requires_grad(false));
  const std::vector<at::Tensor> numbers(weights.size(), number);
  at::_fused_adamw_(weights, grads, first, second, {}, numbers, rate, config.beta1, config.beta2, config.weight_decay,
                    config.epsilon,
                    /*amsgrad=*/false, /*maximize=*/false);
  if (!state.averaged.empty()) {
    std::vector<at::Tensor> averaged = values(state.averaged);
    at::_foreach_lerp_(averaged, weights, 1 - ema_decay(config, state.step));
  }
  for (auto& [name, tensor] : state.weights) tensor.mutable_grad() = at::Tensor();
  return norm;
}

void save_state(const std::filesystem::path& path, const TrainState& state, const std::string& key) {
  TensorMap all;
  for (const Section& section : kSections) {
    for (const auto& [name, tensor] : state.*section.map) all[section.prefix + name] = tensor;
  }
  runtime::write_tensors(path, all, {{"key", key}, {"step", std::to_string(state.step)}});
}

TrainState load_state(const std::filesystem::path& path, const std::string& key, at::Device device) {
  const auto file = runtime::SafetensorsFile::open(path);
  const auto& metadata = file->metadata();
  if (!metadata.contains("key") || !metadata.contains("step"))
    throw input_error(path.string(), ": not a checkpoint of distill");
  if (metadata.at("key") != key) {
    throw runtime::usage_error(
        path.string(),
        ": belongs to a run with another config, model or data; choose another folder, or --overwrite to start over");
  }
  TrainState state;
  state.step = std::stoll(metadata.at("step"));
  for (const auto& [name, view] : file->tensors()) {
    for (const Section& section : kSections) {
      const std::string prefix = section.prefix;
      if (name.rfind(prefix, 0) != 0) continue;
      (state.*section.map)[name.substr(prefix.size())] =
          runtime::view_tensor(file, view).to(device, at::kFloat, false, /*copy=*/true);
    }
  }
  for (auto& [name, tensor] : state.weights) tensor.set_requires_grad(true);
  return state;
}

}  // namespace laptopdiff::distill
