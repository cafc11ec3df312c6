// What taylor and fisher share: the training loss's gradient by every parameter that can leave, sample by sample.
#pragma once

#include "pruning/criteria/values.h"
#include "unet/executor.h"

namespace laptopdiff::pruning {

// A row's value is the sum of `of_parameter(gradient, weight)` over the parameters that leave with it. The loss of a
// sample is mean (eps - target)^2.
class Gradients : public Values {
 public:
  using OfParameter = at::Tensor (*)(const at::Tensor& gradient, const at::Tensor& weight);  // a double scalar

  Gradients(const Subject& subject, OfParameter of_parameter);

  std::int64_t samples() const override { return inputs_.batch(); }
  std::int64_t block_samples() const override { return block_samples_; }
  double forwards_per_sample() const override { return 3; }  // a backward pass is two

 protected:
  at::Tensor values(const Block& block) override;

 private:
  at::Tensor one_sample(std::int64_t sample) const;  // [R]

  std::vector<std::vector<std::string>> rows_;
  runtime::TensorMap leaves_;  // the weights , those that can leave with requires_grad; storage is shared
  unet::Executor executor_;
  unet::Inputs inputs_;
  at::Tensor target_;
  std::int64_t block_samples_;
  OfParameter of_parameter_;
};

}  // namespace laptopdiff::pruning
