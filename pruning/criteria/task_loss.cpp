#include <torch/types.h>

#include "pruning/criteria/rows.h"
#include "pruning/criteria/variant_outputs.h"
#include "pruning/output_loss.h"

namespace laptopdiff::pruning {
namespace {

class TaskLoss : public VariantOutputs {
 public:
  explicit TaskLoss(const Subject& subject) : VariantOutputs(subject), target_(subject.target) {}

 protected:
  Measured compare(const Block& block, const at::Tensor& all, const std::vector<at::Tensor>& without) const override {
    const at::Tensor target = target_.slice(0, block.first, block.last).to(all.device());
    return {squared_differences(target, without) - squared_differences(target, {all}), {}};  // [R, b] - [1, b]
  }

 private:
  at::Tensor target_;  // [N, C, H, W]
};

}  // namespace

Criterion task_loss_row() {
  return {"task_loss",
          "mean (eps(without it) - target)^2 - mean (eps - target)^2: how much the training loss rises",
          "a baseline of LAPTOP-Diff's comparisons",
          Needs::targets,
          "the output without this unit is not finite",
          [](const Subject& subject) -> std::unique_ptr<Measurement> { return std::make_unique<TaskLoss>(subject); }};
}

}  // namespace laptopdiff::pruning
