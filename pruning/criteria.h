// The criteria by name: what a layer is worth. One row and one file each, in criteria/.
//
// Lower means less important, for all of them; values may be negative, and those of two criteria are not on one scale.
// A criterion only says how to measure; driver, resuming, processes, bins and stopping are scoring.h's for all.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "pruning/engine.h"
#include "pruning/measurement.h"
#include "pruning/removables.h"

namespace laptopdiff::pruning {

// What a criterion looks at, besides the model.
enum class Needs {
  weights,    // nothing else
  inputs,     // calibration samples
  targets,    // and what the network should have predicted for them
  gradients,  // the same, to differentiate the loss by the weights
  latents,    // final latents, sampled without each row's layers
  pictures,   // scores of pictures drawn so
};

// Sampling, which lies above this library: experiments/ hands it in. P prompts.
struct Sampling {
  std::int64_t prompts = 0;
  std::function<at::Tensor(const unet::Program&)> latents;  // [P, c, h, w] of a variant
  std::function<std::vector<double>(const unet::Program&)>
      picture_scores;  // [P], such as CLIP scores; higher is better
};

// Everything that is referred to must outlive the measurement.
struct Subject {
  const unet::Program& base;
  const Removables& removables;
  const unet::Executor& executor;  // of the base
  const runtime::TensorMap& weights;
  unet::Inputs inputs;     // N samples; undefined tensors where the criterion has no use for them
  at::Tensor target;       // [N, C, H, W]
  std::int64_t batch = 0;  // samples of a block; 0: as many as the memory limit allows, at most 32
  EngineOptions engine;
  std::uint64_t seed = 0;  // of `random`
  Sampling sampling;
};

struct Criterion {
  const char* name;
  const char* formula;
  const char* source;
  Needs needs;
  const char* why_null;  // said of a row whose value is not finite
  std::unique_ptr<Measurement> (*make)(const Subject& subject);
};
const std::vector<Criterion>& criteria();

// Throws Error(usage) listing the near names.
const Criterion& find_criterion(const std::string& name);

// "name  formula (needs; source)", a line each: for --help.
std::string criteria_text();

}  // namespace laptopdiff::pruning
