// Local search for the quadratic solver: from a feasible mask to one that no small move improves.
#pragma once

#include <cstdint>

#include "pruning/solvers/binary_form.h"

namespace laptopdiff::pruning {

// Moves: flip one item, swap one for one, two for one, one for two. Only feasible ones, first improvement, until none
// improves. Items that the domains fix never move. The result is feasible and no worse than `removed`.
Mask improve(const BinaryForm& form, const Mask& removed);

// Iterated: improves, then `restarts` times flips a few random items of the best, mends the budgets and improves again.
// A pure function of its arguments.
Mask search_locally(const BinaryForm& form, const Mask& removed, int restarts, std::uint64_t seed);

}  // namespace laptopdiff::pruning
