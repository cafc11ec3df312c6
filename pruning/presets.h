// Handcrafted students as removals from their base (BK-SDM, Segmind): rows of a table, written for any base of the
// same topology.
#pragma once

#include <string>
#include <vector>

#include "unet/spec.h"

namespace laptopdiff::pruning {

// bk-sdm-base, bk-sdm-small, bk-sdm-tiny, segmind-small (= bk-sdm-base), segmind-tiny (= bk-sdm-tiny).
std::vector<std::string> preset_names();

// Throws Error(usage): unknown preset (near names listed), or a base whose topology it does not fit, saying why.
std::vector<unet::Removal> preset_removals(const std::string& name, const unet::Program& base);

}  // namespace laptopdiff::pruning
