#include <torch/types.h>

#include "pruning/criteria/gradients.h"
#include "pruning/criteria/rows.h"

namespace laptopdiff::pruning {

Criterion fisher_row() {
  return {"fisher",
          "mean over samples of 1/2 sum (w dL/dw)^2 over the parameters that leave, L the training loss",
          "Theis et al. 2018: the second-order term with the diagonal empirical Fisher matrix",
          Needs::gradients,
          "the gradient of the loss is not finite",
          [](const Subject& subject) -> std::unique_ptr<Measurement> {
            return std::make_unique<Gradients>(subject, [](const at::Tensor& gradient, const at::Tensor& weight) {
              return (gradient * weight).square().sum(at::kDouble) / 2;
            });
          }};
}

}  // namespace laptopdiff::pruning
