// Handcrafted students as removals from their base (BK-SDM, Segmind, KOALA): rows of a table, written for any base of
// the same topology.
//
// What the published sizes leave open is read as the field's habit: a down stage keeps its first layers, an up stage
// its first and its last, a shortened transformer its leading blocks, a middle of one ResNet the first. recover_spec()
// reads foreign students in the same way, so a preset exported and recovered is the same spec.
#pragma once

#include <string>
#include <vector>

#include "unet/spec.h"

namespace laptopdiff::pruning {

// bk-sdm-base, bk-sdm-small, bk-sdm-tiny, segmind-small (= bk-sdm-base), segmind-tiny (= bk-sdm-tiny); of SDXL
// koala-1b, koala-700m, ssd-1b, segmind-vega.
std::vector<std::string> preset_names();

// Throws Error(usage): unknown preset (near names listed), or a base whose topology it does not fit, saying why.
std::vector<unet::Removal> preset_removals(const std::string& name, const unet::Program& base);

}  // namespace laptopdiff::pruning
