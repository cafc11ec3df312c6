// What a spec does to each unit of its base. Knows no torch.
#pragma once

#include <vector>

#include "unet/program.h"
#include "unet/spec.h"

namespace laptopdiff::unet {

enum class Fate {
  kept,
  partly,    // some of its steps are gone (attn1, attn2 or ff alone)
  bypassed,  // its residual branch is gone, its skip stays
  dropped,   // gone with its skip, or with its whole stage
};
const char* fate_name(Fate fate);

// One entry a unit. Throws Error(bad_input) where the spec does not fit the base.
std::vector<Fate> fates(const Program& base, const std::vector<Unit>& units, const Spec& spec);

}  // namespace laptopdiff::unet
