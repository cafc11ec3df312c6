// What criteria share that draw pictures with each row's layers removed. Every variant is a part; all prompts are one
// block, since a sampler's steps build on each other and share nothing between variants.
#pragma once

#include "pruning/criteria.h"

namespace laptopdiff::pruning {

class Sampled : public Measurement {
 public:
  explicit Sampled(const Subject& subject) : subject_(subject) {}

  std::int64_t samples() const override { return subject_.sampling.prompts; }
  std::int64_t block_samples() const override { return subject_.sampling.prompts; }
  std::int64_t parts() const override { return subject_.removables.rows() + 1; }  // the base first
  runtime::TensorMap measure(const Block& block, std::int64_t part) override;
  Measured fold(const Block& block, const std::vector<runtime::TensorMap>& parts) const override;

 protected:
  virtual at::Tensor draw(const unet::Program& variant) = 0;
  // What `draw` gave for the base and for a row -> [N] double. NaN where the row's is not finite.
  virtual at::Tensor compare(const at::Tensor& all, const at::Tensor& without) const = 0;

  const Subject& subject() const { return subject_; }

 private:
  Subject subject_;
};

}  // namespace laptopdiff::pruning
