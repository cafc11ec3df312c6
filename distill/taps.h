// Which hidden states of teacher and student are compared. Knows no torch.
//
// Both are programs of one base, so a point is a base position: the hidden state after it. What a student lacks is
// passed, so every teacher point before the end exists in the student, and shapes agree wherever no stage is missing.
#pragma once

#include <string>
#include <vector>

#include "unet/program.h"

namespace laptopdiff::distill {

// The hidden state after `position`; where `minus` is set, what the steps since `minus` added to it (the output of a
// proj_out before its residual sum).
struct TapPoint {
  int position = 0;
  int minus = -1;
};

struct TapPair {
  std::string name;  // of the teacher's module
  TapPoint teacher, student;
};

// bk      outputs of the down and up stages; where the last stages are missing, BK-SDM tiny's pairs: the output of the
//         last proj_out of the deepest down stage that is left (2305.15798, published code)
// blocks  outputs of every stage and the middle (Segmind); a down stage that lost its sampler meets the teacher's last
//         missing up stage. A middle of which nothing is left has no output of its own and is not paired
// units   outputs of every unit that both have
std::vector<std::string> tap_set_names();

// Throws Error(usage) on an unknown name, or where student and teacher have no point in common.
std::vector<TapPair> tap_pairs(const std::string& set, const unet::Program& teacher, const unet::Program& student);

}  // namespace laptopdiff::distill
