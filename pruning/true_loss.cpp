#include "pruning/true_loss.h"

#include <torch/types.h>

#include <algorithm>
#include <cmath>

#include "pruning/output_loss.h"
#include "runtime/error.h"
#include "runtime/progress.h"
#include "runtime/stop.h"

namespace laptopdiff::pruning {

namespace {

constexpr std::int64_t kMostMeasuredAtOnce = 32;

MeasuredLoss summary(const at::Tensor& losses) {  // [N] in double
  MeasuredLoss measured;
  measured.loss = losses.mean().item<double>();
  if (losses.numel() > 1)
    measured.standard_error = losses.std().item<double>() / std::sqrt(static_cast<double>(losses.numel()));
  return measured;
}

}  // namespace

std::vector<MeasuredLoss> LossMeter::measure(const std::vector<std::vector<unet::Removal>>& sets,
                                             const std::string& what) {
  unet::Spec spec;
  spec.base = base_.config;
  spec.shell = options_.shell;
  std::vector<unet::Program> variants;
  for (const auto& removed : sets) {
    spec.removed = removed;
    variants.push_back(unet::prune(base_, spec));
  }
  return measure(variants, what);
}

std::vector<MeasuredLoss> LossMeter::measure(const std::vector<unet::Program>& variants, const std::string& what) {
  if (variants.empty()) return {};
  const c10::InferenceMode inference;
  const std::int64_t samples = inputs_.batch();
  const std::size_t element_size = inputs_.sample.element_size();
  if (reference_batch_ == 0) {
    const std::int64_t each = bytes_per_variant(base_, element_size) * static_cast<std::int64_t>(variants.size() + 1);
    reference_batch_ = options_.batch > 0
                           ? options_.batch
                           : std::clamp<std::int64_t>(options_.engine.memory_bytes / std::max<std::int64_t>(1, each), 1,
                                                      kMostMeasuredAtOnce);
  }
  const bool with_base = references_.empty();
  std::vector<unet::Program> all;
  if (with_base) all.push_back(base_);
  all.insert(all.end(), variants.begin(), variants.end());
  const Engine engine(base_, executor_, options_.engine);
  const Plan plan = engine.plan(all, reference_batch_, element_size);
  std::vector<at::Tensor> losses;  // [V, b] a batch
  runtime::Progress progress(what, samples, "samples");
  for (std::int64_t begin = 0; begin < samples; begin += reference_batch_) {
    runtime::throw_if_interrupted("measuring starts over; nothing was written");
    const std::int64_t end = std::min(samples, begin + reference_batch_);
    std::vector<at::Tensor> outputs = engine.evaluate(plan, unet::slice(inputs_, begin, end));
    if (with_base) {
      if (!at::isfinite(outputs.front()).all().item<bool>()) {
        throw runtime::non_finite_error("the model's own output is not finite on samples ", begin, " to ", end - 1,
                                        "; try --dtype f32");
      }
      references_.push_back(outputs.front());
      outputs.erase(outputs.begin());
    }
    losses.push_back(squared_differences(references_[static_cast<std::size_t>(begin / reference_batch_)], outputs));
    progress.update(end);
  }
  progress.finish();
  const double of_base = static_cast<double>(base_.macs());
  forwards_ += static_cast<double>(plan.macs) / of_base;
  naive_forwards_ += static_cast<double>(plan.naive_macs) / of_base;
  const at::Tensor joined = at::cat(losses, 1);
  std::vector<MeasuredLoss> measured;
  for (std::size_t v = 0; v < variants.size(); ++v) measured.push_back(summary(joined[static_cast<std::int64_t>(v)]));
  return measured;
}

}  // namespace laptopdiff::pruning
