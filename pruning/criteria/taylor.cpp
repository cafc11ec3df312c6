#include <torch/types.h>

#include "pruning/criteria/gradients.h"
#include "pruning/criteria/rows.h"

namespace laptopdiff::pruning {

Criterion taylor_row() {
  return {"taylor",
          "mean over samples of sum |w dL/dw| over the parameters that leave, L the training loss",
          "Molchanov et al. 2019; for whole blocks Shortened LLaMA (Kim et al. 2024)",
          Needs::gradients,
          "the gradient of the loss is not finite",
          [](const Subject& subject) -> std::unique_ptr<Measurement> {
            return std::make_unique<Gradients>(subject, [](const at::Tensor& gradient, const at::Tensor& weight) {
              return (gradient * weight).abs().sum(at::kDouble);
            });
          }};
}

}  // namespace laptopdiff::pruning
