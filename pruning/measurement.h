// What a criterion measures, in pieces that can be done apart, on any process, and written down.
//
// Samples come in blocks of a fixed size, a block's work in parts. Which pieces there are follows from the plan and the
// memory limit alone, never from threads or ranks, so that whoever does them gets the same bits. The parts of a block
// are folded into one small value a row and sample; means, standard errors, bins, bootstrap and Gram matrix come from
// those afterwards. R rows as in Removables, N samples, b samples of a block.
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "runtime/json.h"
#include "runtime/tensors.h"

namespace laptopdiff::pruning {

struct Measured {
  at::Tensor values;  // [R, N] double, on the CPU; a row's score is the mean over N. N is 1 for what has no samples
  at::Tensor gram;    // [N, R, R] double, symmetric: inner products a sample; undefined where the criterion has none
};

// Samples [first, last) of the block.
struct Block {
  std::int64_t index = 0, first = 0, last = 0;
};

class Measurement {
 public:
  virtual ~Measurement() = default;
  // How many there are, and how many make a block; the last block may be smaller.
  virtual std::int64_t samples() const = 0;
  virtual std::int64_t block_samples() const = 0;
  virtual std::int64_t parts() const { return 1; }
  // Called with ascending parts of a block where one process does them, which may go on from where it is.
  virtual runtime::TensorMap measure(const Block& block, std::int64_t part) = 0;
  // From all parts in order. Throws Error(non_finite) where there is nothing to compare with.
  virtual Measured fold(const Block& block, const std::vector<runtime::TensorMap>& parts) const = 0;
  // What is in the pieces, by their numbers: the same for two measurements whose pieces can stand for each other's.
  virtual runtime::Json plan() const { return {{"block_samples", block_samples()}, {"parts", parts()}}; }
  // Whether `fold` gives a Gram matrix.
  virtual bool has_gram() const { return false; }
  // Passes through the base that a sample costs, and what the plain loop over rows and base would cost; 0: not counted.
  virtual double forwards_per_sample() const { return 0; }
  virtual double naive_forwards_per_sample() const { return 0; }
};

}  // namespace laptopdiff::pruning
