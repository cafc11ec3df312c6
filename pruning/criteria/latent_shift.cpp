#include <torch/types.h>

#include <limits>

#include "pruning/criteria/rows.h"
#include "pruning/criteria/sampled.h"

namespace laptopdiff::pruning {
namespace {

class LatentShift : public Sampled {
 public:
  using Sampled::Sampled;

 protected:
  at::Tensor draw(const unet::Program& variant) override { return subject().sampling.latents(variant); }
  at::Tensor compare(const at::Tensor& all, const at::Tensor& without) const override {
    if (without.sizes() != all.sizes()) return at::full({1}, std::numeric_limits<double>::quiet_NaN(), at::kDouble);
    const at::Tensor ours = all.to(at::kDouble), theirs = without.to(at::kDouble);  // [P, c, h, w]
    return ((ours.mean(0) - theirs.mean(0)).norm() + (ours.std(0) - theirs.std(0)).norm()).reshape({1});
  }
};

}  // namespace

Criterion latent_shift_row() {
  return {
      "latent_shift",
      "||mean(z) - mean(z without it)|| + ||std(z) - std(z without it)||, z a batch of sampled latents",
      "LD-Pruner (Castells et al. 2024)",
      Needs::latents,
      "sampling without this unit is not finite",
      [](const Subject& subject) -> std::unique_ptr<Measurement> { return std::make_unique<LatentShift>(subject); }};
}

}  // namespace laptopdiff::pruning
