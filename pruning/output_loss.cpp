#include "pruning/output_loss.h"

#include <torch/types.h>

#include <cmath>

#include "pruning/criteria/rows.h"
#include "pruning/criteria/variant_outputs.h"
#include "pruning/scoring.h"

namespace laptopdiff::pruning {
namespace {

constexpr const char* kNotFinite = "the output without this unit is not finite";

class OutputLoss : public VariantOutputs {
 public:
  using VariantOutputs::VariantOutputs;
  bool has_gram() const override { return true; }

 protected:
  Measured compare(const Block&, const at::Tensor& all, const std::vector<at::Tensor>& without) const override {
    const double elements = static_cast<double>(all[0].numel());
    std::vector<at::Tensor> grams;
    for (std::int64_t sample = 0; sample < all.size(0); ++sample) {
      std::vector<at::Tensor> rows;
      for (const at::Tensor& output : without)
        rows.push_back((output[sample].to(at::kFloat) - all[sample].to(at::kFloat)).flatten());
      const at::Tensor differences = at::stack(rows).to(at::kDouble);  // [R, CHW]
      const at::Tensor inner = at::matmul(differences, differences.t()).to(at::kCPU) / elements;
      grams.push_back((inner + inner.t()) / 2);  // rounding is not symmetric
    }
    return {squared_differences(all, without), at::stack(grams)};
  }
};

std::unique_ptr<Measurement> make_output_loss(const Subject& subject) { return std::make_unique<OutputLoss>(subject); }

}  // namespace

Criterion output_loss_row() {
  return {"output_loss",
          "mean (eps(without it) - eps)^2, with the Gram matrix of these differences; a set's loss is their sum",
          "LAPTOP-Diff (Zhang et al. 2024)",
          Needs::inputs,
          kNotFinite,
          make_output_loss};
}

Criterion gram_row() {
  return {"gram",     "the same measurement; a set's loss is x'Gx, so its masks are for `solve --solver gram`",
          "ours",     Needs::inputs,
          kNotFinite, make_output_loss};
}

at::Tensor squared_differences(const at::Tensor& reference, const std::vector<at::Tensor>& outputs) {
  std::vector<at::Tensor> rows;
  const at::Tensor plain = reference.to(at::kFloat);
  for (const at::Tensor& output : outputs) {
    rows.push_back((output.to(at::kFloat) - plain).to(at::kDouble).square().flatten(1).mean(1));  // [B]
  }
  return at::stack(rows).to(at::kCPU);
}

Scores score_output_loss(const unet::Program& base, const unet::Executor& executor, const unet::Inputs& inputs,
                         const OutputLossOptions& options, OutputLossReport* report) {
  const Removables removables = find_removables(base, options.shell);
  const runtime::TensorMap no_weights;
  OutputLoss measurement(
      {base, removables, executor, no_weights, inputs, at::Tensor(), options.batch, options.engine, 0, {}});
  if (report != nullptr) {
    double naive = static_cast<double>(base.macs());
    for (const unet::Program& without : removables.without) naive += static_cast<double>(without.macs());
    const double own = measurement.forwards_per_sample();
    report->forwards_saved = naive / static_cast<double>(base.macs()) - own;
    report->macs_per_sample = static_cast<std::int64_t>(std::llround(own * static_cast<double>(base.macs())));
  }
  WorkFolder in_memory;
  Scores scores =
      summarise(base, removables, measure_samples(measurement, in_memory, inputs.batch()), output_loss_row().why_null);
  warn_of_missing(scores);
  scores.criterion = "output_loss";
  scores.shell = options.shell;
  scores.samples = inputs.batch();
  return scores;
}

}  // namespace laptopdiff::pruning
