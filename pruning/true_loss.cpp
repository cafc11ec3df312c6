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

MeasuredLoss summary(const at::Tensor& losses, const at::Tensor& weights) {  // both [N] in double
  MeasuredLoss measured;
  measured.loss = losses.dot(weights).item<double>();
  if (losses.numel() > 1)
    measured.standard_error = losses.std().item<double>() / std::sqrt(static_cast<double>(losses.numel()));
  return measured;
}

unet::Inputs take(const unet::Inputs& inputs, const at::Tensor& rows) {
  unet::Inputs taken = inputs;
  for (at::Tensor* tensor : {&taken.sample, &taken.timestep, &taken.encoder_hidden_states, &taken.text_embeds,
                             &taken.time_ids, &taken.class_labels, &taken.timestep_cond}) {
    if (tensor->defined()) *tensor = tensor->index_select(0, rows.to(tensor->device()));
  }
  return taken;
}

at::Tensor equal_weights(std::int64_t count) {
  return at::full({count}, 1.0 / static_cast<double>(count), at::kDouble);
}

std::int64_t count_of_few(const MeterOptions& options, std::int64_t all) {
  constexpr std::int64_t kLeastFew = 4, kPart = 8;
  return std::min(all, options.few > 0 ? options.few : std::max(kLeastFew, all / kPart));
}

}  // namespace

LossMeter::LossMeter(const unet::Program& base, const unet::Executor& executor, const unet::Inputs& inputs,
                     MeterOptions options)
    : base_(base), executor_(executor), options_(std::move(options)), all_{inputs, {}, equal_weights(inputs.batch())} {}

double LossMeter::few_share() const {
  const std::int64_t all = all_.inputs.batch();
  return static_cast<double>(count_of_few(options_, all)) / static_cast<double>(all);
}

void LossMeter::pick_few(const at::Tensor& losses) {
  const std::int64_t all = losses.numel(), few = count_of_few(options_, all);
  const double mean = losses.mean().item<double>();
  if (few == all || !std::isfinite(mean) || !(losses.min().item<double>() > 0)) return;
  const at::Tensor order = at::argsort(all_.inputs.timestep.to(at::kCPU), /*stable=*/true, 0, /*descending=*/false);
  const auto row = order.accessor<std::int64_t, 1>();
  const at::Tensor plain = losses.contiguous();
  const double* loss = plain.data_ptr<double>();
  const auto share = [&](std::int64_t sample) {  // of the picks
    return 0.5 * (loss[sample] / mean + 1) / static_cast<double>(all);
  };
  std::vector<std::int64_t> rows;
  std::vector<double> weights;
  double passed = 0, of_first = 0;
  int picked = 0;
  for (std::int64_t k = 0; k < all; ++k) {
    const std::int64_t sample = row[k];
    passed += share(sample);
    int hits = 0;
    while (picked < few && (picked + 0.5) / static_cast<double>(few) < passed) {
      ++picked;
      ++hits;
    }
    if (hits == 0) continue;
    rows.push_back(sample);
    weights.push_back(hits / share(sample));
    of_first += weights.back() * loss[sample];
  }
  for (double& weight : weights) weight *= mean / of_first;
  few_ = Part{take(all_.inputs, at::tensor(rows, at::kLong)), {}, at::tensor(weights, at::kDouble)};
}

std::int64_t LossMeter::batch_for(std::size_t variants) const {
  if (options_.batch > 0) return options_.batch;
  return samples_at_once(base_, variants + 1, options_.engine.memory_bytes, all_.inputs.sample.element_size(),
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
  Part& part = samples == Samples::few && few_ ? *few_ : all_;
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
  for (std::size_t v = 0; v < variants.size(); ++v)
    measured.push_back(summary(joined[static_cast<std::int64_t>(v)], part.weights));
  if (&part == &all_ && !few_) pick_few(joined[0]);
  return measured;
}

}  // namespace laptopdiff::pruning
