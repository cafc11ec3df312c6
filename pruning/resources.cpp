#include "pruning/resources.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>

#include "runtime/error.h"
#include "runtime/progress.h"

namespace laptopdiff::pruning {
namespace {

using unet::Program;
using unet::Step;
using unet::StepKind;

constexpr std::array<const char*, 4> kNames = {"params", "macs", "latency", "activations"};

// Numbers that autograd keeps of a step, every tensor once: what its norms, activations, convolutions, linear layers
// and attention (which keeps no probabilities) read, and its input, which is the output of the step before it. The few
// vectors of the embeddings are left out. `before`: positions of the image that the step reads.
std::int64_t kept_numbers(const Program& program, const Step& step, std::int64_t before) {
  const std::int64_t in = step.in_channels, out = step.out_channels, after = std::int64_t{step.height} * step.width;
  const bool only_text = step.stage >= 0 && program.stages[static_cast<std::size_t>(step.stage)].only_cross_attention;
  const std::int64_t attention = in * 6 * before;  // input, norm, queries, keys, values, result
  const std::int64_t cross = in * (4 * before + 2 * program.geometry.tokens);
  switch (step.kind) {
    case StepKind::embed:
    case StepKind::push:
    case StepKind::pop_concat: return 0;
    // Input, norm, activation; the same of the second half. A resizing one resizes before its convolutions.
    case StepKind::resnet: return in * (2 * before + after) + 3 * out * after;
    case StepKind::attn1: return only_text ? cross : attention;
    case StepKind::attn2: return cross;
    case StepKind::attention: return attention;
    case StepKind::ff:
      return in * 18 * before;  // input, norm, both halves of the first layer (8), gate (4), product (4)
    case StepKind::shell_in:
    case StepKind::norm_out: return in * 2 * before;
    case StepKind::upsample: return in * after;
    case StepKind::conv_in:
    case StepKind::conv_out:
    case StepKind::shortcut:
    case StepKind::shell_out:
    case StepKind::downsample: return in * before;
  }
  return 0;
}

double activation_bytes(const Program& program) {
  std::int64_t numbers = 0, before = std::int64_t{program.geometry.height} * program.geometry.width;
  for (const Step& step : program.steps) {
    numbers += kept_numbers(program, step, before);
    before = std::int64_t{step.height} * step.width;
  }
  return static_cast<double>(numbers) * sizeof(float);
}

double seconds(const Program& program, const Latency& latency) {
  double sum = 0;
  for (const Step& step : program.steps) {
    sum += step.kind == StepKind::shortcut ? latency.shortcuts.at(step.position)
                                           : latency.steps[static_cast<std::size_t>(step.position)];
  }
  return sum;
}

}  // namespace

const char* resource_name(Resource resource) { return kNames[static_cast<std::size_t>(resource)]; }

std::vector<std::string> resource_names() { return {kNames.begin(), kNames.end()}; }

std::string amount_text(Resource resource, double amount) {
  char text[48];
  switch (resource) {
    case Resource::latency: std::snprintf(text, sizeof text, "%.4g s", amount); return text;
    case Resource::activations: std::snprintf(text, sizeof text, "%.1f MiB", amount / 0x1p20); return text;
    default: return runtime::with_commas(std::llround(amount));
  }
}

CostModel::CostModel(const Program& base, std::optional<Latency> latency) : base_(base), latency_(std::move(latency)) {
  if (!latency_) return;
  const unet::Json theirs = unet::comparable_config(latency_->base), ours = unet::comparable_config(base.config);
  if (latency_->base.model_class != base.config.model_class || theirs != ours) {
    throw runtime::input_error(latency_->base.where, ": times of another base (", latency_->base.class_name(), ", ",
                               latency_->steps.size(), " steps); measure this one with `laptopdiff bench layers`");
  }
}

double CostModel::amount(const Program& variant, Resource resource) const {
  switch (resource) {
    case Resource::params: return static_cast<double>(variant.params());
    case Resource::macs: return static_cast<double>(variant.macs());
    case Resource::activations: return activation_bytes(variant);
    case Resource::latency: break;
  }
  if (!latency_) {
    throw runtime::usage_error(
        "a budget of latency needs the times of this base's layers on this device; make them with "
        "`laptopdiff bench layers MODEL -o latency.json` and give --latency latency.json");
  }
  return seconds(variant, *latency_);
}

std::vector<double> CostModel::freed(const std::vector<unet::Removal>& removed, unet::Shell shell,
                                     const std::vector<Resource>& resources) const {
  unet::Spec spec;
  spec.base = base_.config;
  spec.shell = shell;
  spec.removed = removed;
  const Program pruned = unet::prune(base_, spec);
  std::vector<double> freed;
  for (const Resource resource : resources) freed.push_back(std::max(0.0, total(resource) - amount(pruned, resource)));
  return freed;
}

}  // namespace laptopdiff::pruning
