// Best-first branch and bound over the quadratic form.
#pragma once

#include <cstdint>
#include <vector>

#include "pruning/solvers/binary_form.h"

namespace laptopdiff::pruning {

struct TreeResult {
  std::vector<std::uint8_t> y;  // the best variables found
  double loss = 0;
  double bound = 0;  // <= the loss of every feasible choice
  bool proven = false;
  std::int64_t nodes = 0;
};

// From a feasible start, within `max_nodes` node bounds. Nodes, not seconds, are counted, so that the same problem has
// the same answer on every machine. Proven means to a relative 1e-9. Memory: about size + 40 bytes an open node.
TreeResult branch_and_bound(const Problem& problem, const BinaryForm& form, std::vector<std::uint8_t> start,
                            std::int64_t max_nodes);

}  // namespace laptopdiff::pruning
