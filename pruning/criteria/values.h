// Measurements whose only part is the values themselves.
#pragma once

#include "pruning/criteria.h"

namespace laptopdiff::pruning {

class Values : public Measurement {
 public:
  runtime::TensorMap measure(const Block& block, std::int64_t) override { return {{"values", values(block)}}; }
  Measured fold(const Block&, const std::vector<runtime::TensorMap>& parts) const override {
    return {parts.front().at("values"), {}};
  }

 protected:
  virtual at::Tensor values(const Block& block) = 0;  // [R, b] double, on the CPU
};

// Of criteria without samples: one value a row.
class WeightValues : public Values {
 public:
  std::int64_t samples() const override { return 1; }
  std::int64_t block_samples() const override { return 1; }
};

// Samples that a criterion with one pass through the base takes together, where `subject` leaves it open.
std::int64_t samples_at_once(const Subject& subject);

// The names of the parameters that leave with each row: those of the base that the variant has not.
std::vector<std::vector<std::string>> parameters_of_rows(const Subject& subject);

}  // namespace laptopdiff::pruning
