// What can be removed from a base by itself: the rows of every criterion's measurement.
#pragma once

#include <string>
#include <vector>

#include "unet/spec.h"

namespace laptopdiff::pruning {

// Rows are the units in execution order, then the shells (Transformer2DModels) that hold several units and go with
// them.
struct Removables {
  std::vector<unet::Unit> units;
  std::vector<unet::ShellGroup> shells;  // none where shells are kept
  std::vector<unet::Program> without;    // the base without a row's layers, by bypass

  std::int64_t rows() const { return static_cast<std::int64_t>(without.size()); }
  const std::string& name(std::int64_t row) const;
};

Removables find_removables(const unet::Program& base, unet::Shell shell);

}  // namespace laptopdiff::pruning
