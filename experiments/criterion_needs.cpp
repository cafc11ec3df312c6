#include "experiments/criterion_needs.h"

#include <set>

namespace laptopdiff::experiments {

using pruning::Criterion;
using pruning::Needs;

bool is_calibrated(const Criterion& criterion) { return criterion.needs == Needs::inputs || has_targets(criterion); }

bool has_targets(const Criterion& criterion) {
  return criterion.needs == Needs::targets || criterion.needs == Needs::gradients;
}

bool is_sampled(const Criterion& criterion) {
  return criterion.needs == Needs::latents || criterion.needs == Needs::pictures;
}

bool reads_weights(const Criterion& criterion) {
  return criterion.needs == Needs::weights || criterion.needs == Needs::gradients;
}

const pruning::Criterion* criterion_of(const runtime::Json& score) {
  const runtime::Json name = score.value("criterion", runtime::Json("output_loss"));
  for (const pruning::Criterion& criterion : pruning::criteria()) {
    if (name == criterion.name) return &criterion;
  }
  return nullptr;
}

bool has_effect(const Criterion& criterion, const std::string& setting) {
  static const std::set<std::string> kOfCalibration = {"calibration", "samples", "batch", "memory",
                                                       "bins",        "until",   "keep",  "solver"};
  static const std::set<std::string> kOfSampling = {"prompts", "scheduler", "count",
                                                    "steps",   "guidance",  "picture_batch"};
  if (kOfCalibration.contains(setting)) return is_calibrated(criterion);
  if (kOfSampling.contains(setting)) return is_sampled(criterion);
  if (setting == "models") return criterion.needs == Needs::pictures;
  return true;
}

}  // namespace laptopdiff::experiments
