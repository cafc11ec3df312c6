#include <torch/types.h>

#include "pruning/criteria/rows.h"
#include "pruning/criteria/values.h"
#include "runtime/error.h"

namespace laptopdiff::pruning {
namespace {

using unet::State;
using unet::Step;

// Where a row's variant does something else than the base: base positions [first, last], and what it does there.
struct Detour {
  int first = 0, last = 0;
  std::vector<Step> steps;
};

Detour detour_of(const unet::Program& base, const unet::Program& without) {
  std::vector<const Step*> lane(base.steps.size(), nullptr);
  for (const Step& step : without.steps) lane[static_cast<std::size_t>(step.position)] = &step;
  const auto same = [&](std::size_t position) {
    return lane[position] != nullptr && lane[position]->kind == base.steps[position].kind;
  };
  std::size_t first = 0, last = base.steps.size() - 1;
  while (first < last && same(first)) ++first;
  while (last > first && same(last)) --last;
  Detour detour{static_cast<int>(first), static_cast<int>(last), {}};
  for (std::size_t position = first; position <= last; ++position) {
    if (lane[position] != nullptr) detour.steps.push_back(*lane[position]);
  }
  return detour;
}

// 1 - cosine over channels, mean over positions: images [b, C, H, W] or tokens [b, N, C] -> [b].
at::Tensor influence(const at::Tensor& with, const at::Tensor& without) {
  const std::int64_t channels = with.dim() == 4 ? 1 : 2;
  const at::Tensor cosine =
      at::cosine_similarity(with.to(at::kFloat), without.to(at::kFloat), channels).to(at::kDouble);
  return (1 - cosine).flatten(1).mean(1);
}

class BlockInfluence : public Values {
 public:
  explicit BlockInfluence(const Subject& subject)
      : base_(subject.base),
        executor_(subject.executor),
        inputs_(subject.inputs),
        block_samples_(samples_at_once(subject)) {
    for (const unet::Program& without : subject.removables.without) detours_.push_back(detour_of(base_, without));
  }

  std::int64_t samples() const override { return inputs_.batch(); }
  std::int64_t block_samples() const override { return block_samples_; }
  double forwards_per_sample() const override { return 1; }

 protected:
  at::Tensor values(const Block& block) override {
    const c10::InferenceMode inference;
    std::vector<at::Tensor> rows(detours_.size()), without(detours_.size());
    State state = executor_.start(unet::slice(inputs_, block.first, block.last));
    for (const Step& step : base_.steps) {
      for (std::size_t row = 0; row < rows.size(); ++row) {
        if (detours_[row].first != step.position) continue;
        State aside = state;
        for (const Step& other : detours_[row].steps) executor_.run(other, aside);
        without[row] = aside.hidden;
      }
      executor_.run(step, state);
      for (std::size_t row = 0; row < rows.size(); ++row) {
        if (detours_[row].last != step.position) continue;
        rows[row] = influence(state.hidden, without[row]).to(at::kCPU);
        without[row] = at::Tensor();
      }
    }
    if (!at::isfinite(state.hidden).all().item<bool>()) {
      throw runtime::non_finite_error("the model's own output is not finite on samples ", block.first, " to ",
                                      block.last - 1, "; try --dtype f32");
    }
    return at::stack(rows);  // [R, b]
  }

 private:
  const unet::Program& base_;
  const unet::Executor& executor_;
  unet::Inputs inputs_;
  std::int64_t block_samples_;
  std::vector<Detour> detours_;
};

}  // namespace

Criterion block_influence_row() {
  return {
      "block_influence",
      "1 - cosine over channels of what the layer leaves with and without its branch, mean over positions",
      "KOALA (Lee et al. 2023), ShortGPT (Men et al. 2024)",
      Needs::inputs,
      "what it leaves is not finite",
      [](const Subject& subject) -> std::unique_ptr<Measurement> { return std::make_unique<BlockInfluence>(subject); }};
}

}  // namespace laptopdiff::pruning
