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

// The samples at evenly spaced ranks of their timestep, so that a few see the whole schedule.
unet::Inputs pick(const unet::Inputs& inputs, std::int64_t count) {
  const std::int64_t all = inputs.batch();
  const at::Tensor order = at::argsort(inputs.timestep, /*stable=*/true, 0, /*descending=*/false);
  const at::Tensor ranks =
      ((at::arange(count, at::kDouble) + 0.5) * (static_cast<double>(all) / static_cast<double>(count)))
          .to(at::kLong)
          .to(order.device());
  const at::Tensor rows = order.index_select(0, ranks);
  unet::Inputs picked = inputs;
  for (at::Tensor* tensor : {&picked.sample, &picked.timestep, &picked.encoder_hidden_states, &picked.text_embeds,
                             &picked.time_ids, &picked.class_labels, &picked.timestep_cond}) {
    if (tensor->defined()) *tensor = tensor->index_select(0, rows);
  }
  return picked;
}

std::int64_t count_of_few(const MeterOptions& options, std::int64_t all) {
  constexpr std::int64_t kLeastFew = 4, kPart = 8;
  return std::min(all, options.few > 0 ? options.few : std::max(kLeastFew, all / kPart));
}

}  // namespace

LossMeter::LossMeter(const unet::Program& base, const unet::Executor& executor, const unet::Inputs& inputs,
                     MeterOptions options)
    : base_(base), executor_(executor), options_(std::move(options)), all_{inputs, {}} {
  few_.inputs = pick(inputs, count_of_few(options_, inputs.batch()));
}

double LossMeter::few_share() const {
  return static_cast<double>(few_.inputs.batch()) / static_cast<double>(all_.inputs.batch());
}

std::int64_t LossMeter::batch_for(std::size_t variants) const {
  if (options_.batch > 0) return options_.batch;
  const std::int64_t each =
      bytes_per_variant(base_, all_.inputs.sample.element_size()) * static_cast<std::int64_t>(variants + 1);
  return std::clamp<std::int64_t>(options_.engine.memory_bytes / std::max<std::int64_t>(1, each), 1,
                                  kMostMeasuredAtOnce);
}

std::vector<MeasuredLoss> LossMeter::measure(const std::vector<std::vector<unet::Removal>>& sets,
                                             const std::string& what, Samples samples) {
  unet::Spec spec;
  spec.base = base_.config;
  spec.shell = options_.shell;
  std::vector<unet::Program> variants;
  for (const auto& removed : sets) {
    spec.removed = removed;
    variants.push_back(unet::prune(base_, spec));
  }
  return measure(variants, what, samples);
}

std::vector<MeasuredLoss> LossMeter::measure(const std::vector<unet::Program>& variants, const std::string& what,
                                             Samples samples) {
  if (variants.empty()) return {};
  const c10::InferenceMode inference;
  Part& part = samples == Samples::all ? all_ : few_;
  const std::int64_t count = part.inputs.batch();
  const std::size_t element_size = part.inputs.sample.element_size();
  if (batch_ == 0) batch_ = batch_for(variants.size());
  const bool with_base = part.references.empty();
  std::vector<unet::Program> programs;
  if (with_base) programs.push_back(base_);
  programs.insert(programs.end(), variants.begin(), variants.end());
  const Engine engine(base_, executor_, options_.engine);
  const Plan plan = engine.plan(programs, batch_, element_size);
  std::vector<at::Tensor> losses;  // [V, b] a batch
  runtime::Progress progress(what, count, "samples");
  for (std::int64_t begin = 0; begin < count; begin += batch_) {
    runtime::throw_if_interrupted("measuring starts over; nothing was written");
    const std::int64_t end = std::min(count, begin + batch_);
    std::vector<at::Tensor> outputs = engine.evaluate(plan, unet::slice(part.inputs, begin, end));
    if (with_base) {
      if (!at::isfinite(outputs.front()).all().item<bool>()) {
        throw runtime::non_finite_error("the model's own output is not finite on samples ", begin, " to ", end - 1,
                                        "; try --dtype f32");
      }
      part.references.push_back(outputs.front());
      outputs.erase(outputs.begin());
    }
    losses.push_back(squared_differences(part.references[static_cast<std::size_t>(begin / batch_)], outputs));
    progress.update(end);
  }
  progress.finish();
  const double work = static_cast<double>(count) / static_cast<double>(all_.inputs.batch() * base_.macs());
  forwards_ += static_cast<double>(plan.macs) * work;
  naive_forwards_ += static_cast<double>(plan.naive_macs) * work;
  const at::Tensor joined = at::cat(losses, 1);
  std::vector<MeasuredLoss> measured;
  for (std::size_t v = 0; v < variants.size(); ++v) measured.push_back(summary(joined[static_cast<std::int64_t>(v)]));
  return measured;
}

}  // namespace laptopdiff::pruning
