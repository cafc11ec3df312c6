// What the specs of a study do to each unit of their base.
#pragma once

#include <string>
#include <vector>

#include "experiments/report/settings.h"
#include "unet/fates.h"
#include "unet/program.h"
#include "unet/spec.h"

namespace laptopdiff::report {

// Settings whose specs remove the same.
struct SpecGroup {
  std::string letter;  // "A", "B", ..., to name it in narrow columns
  const unet::Spec* spec = nullptr;
  std::vector<std::string> labels;  // of the settings
  std::vector<unet::Fate> fates;
  std::int64_t params = 0, macs = 0;
  int removed() const;  // units that are not kept whole
};

// The base of a study, and what its specs remove.
struct Pruning {
  unet::Program base;
  std::vector<unet::Unit> units;
  std::vector<SpecGroup> specs;
};

// No value where there are neither scores nor specs.
std::optional<Pruning> pruning_of(const StudyResults& results, const std::vector<Setting>& settings);

// "attentions.0", or "attentions.0 block 3" where the Transformer2DModel has several: a unit's name inside its stage.
std::string short_name(const Pruning& pruning, std::size_t unit);

}  // namespace laptopdiff::report
