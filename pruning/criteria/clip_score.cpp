#include <torch/types.h>

#include "pruning/criteria/rows.h"
#include "pruning/criteria/sampled.h"

namespace laptopdiff::pruning {
namespace {

class ClipScoreDrop : public Sampled {
 public:
  using Sampled::Sampled;

 protected:
  at::Tensor draw(const unet::Program& variant) override {
    return at::tensor(subject().sampling.picture_scores(variant), at::kDouble);  // [P]
  }
  at::Tensor compare(const at::Tensor& all, const at::Tensor& without) const override { return all - without; }
};

}  // namespace

Criterion clip_score_row() {
  return {
      "clip_score",
      "CLIP score of pictures drawn with the whole model, minus that of pictures drawn without it",
      "BK-SDM (Kim et al. 2023)",
      Needs::pictures,
      "sampling without this unit is not finite",
      [](const Subject& subject) -> std::unique_ptr<Measurement> { return std::make_unique<ClipScoreDrop>(subject); }};
}

}  // namespace laptopdiff::pruning
