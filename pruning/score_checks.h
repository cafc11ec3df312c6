// Whether the numbers of scores.json can be what a measurement of its base gave. Knows no torch.
#pragma once

#include <string>

#include "pruning/scores.h"

namespace laptopdiff::pruning {

// Magnitudes that the solvers can form sums, products and squares of; Gram matrices that are symmetric, have no value
// just where a unit has no score, and whose diagonal is the score where the criterion says so; shells with the units
// and the size that the base gives them; counts of samples that add up. `where` is the file, for the message. Throws
// Error(bad_input) naming the entry.
void check_scores(const Scores& scores, const std::string& where);

}  // namespace laptopdiff::pruning
