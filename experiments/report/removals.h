// What the specs of a study do to each unit of their base.
#pragma once

#include <string>
#include <vector>

#include "experiments/report/settings.h"
#include "unet/program.h"
#include "unet/spec.h"

namespace laptopdiff::report {

enum class Fate {
  kept,
  partly,    // some of its steps are gone (attn1, attn2 or ff alone)
  bypassed,  // its residual branch is gone, its skip stays
  dropped,   // gone with its skip, or with its whole stage
};
const char* fate_name(Fate fate);

// One entry a unit. Throws Error(bad_input) where the spec does not fit the base.
std::vector<Fate> fates(const unet::Program& base, const std::vector<unet::Unit>& units, const unet::Spec& spec);

// Settings whose specs remove the same.
struct SpecGroup {
  std::string letter;  // "A", "B", ..., to name it in narrow columns
  const unet::Spec* spec = nullptr;
  std::vector<std::string> labels;  // of the settings
  std::vector<Fate> fates;
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
