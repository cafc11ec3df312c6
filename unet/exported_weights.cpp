#include "unet/exported_weights.h"

#include <torch/types.h>

#include <algorithm>

#include "runtime/error.h"
#include "unet/export_plan.h"
#include "unet/native_config.h"

namespace laptopdiff::unet {
namespace {

void rename(TensorMap& weights, const std::map<std::string, std::string>& base_names) {
  TensorMap renamed;
  for (auto& [name, tensor] : weights) {
    const auto found = base_names.find(name);
    renamed[found == base_names.end() ? name : found->second] = tensor;
  }
  weights = std::move(renamed);
}

bool holds_all(const TensorMap& weights, const Program& program) {
  for (const Step& step : program.steps) {
    for (const Parameter& parameter : step_parameters(program.config, program.stages, step)) {
      const auto found = weights.find(parameter.name);
      if (found == weights.end() || found->second.sizes() != at::IntArrayRef(parameter.shape)) return false;
    }
  }
  return true;
}

ExportPlan dense_plan(const Program& base, const Program& pruned, const std::string& where) {
  try {
    return plan_dense(base, pruned);
  } catch (const runtime::Error& error) {
    throw runtime::input_error(where, ": holds the full model's weights, but its spec.json: ", error.what());
  }
}

// The tensors of removed layers must be what the plan fills in: in a model that was trained on since they are not.
void take_filled(TensorMap& weights, const ExportPlan& plan, const std::string& where) {
  std::vector<std::string> changed;
  for (const ExportTensor& tensor : plan.tensors) {
    if (tensor.fill == Fill::copy) continue;
    const auto found = weights.find(tensor.name);
    if (!at::equal(found->second.to(at::kFloat), filled_tensor(tensor))) changed.push_back(tensor.name);
    weights.erase(found);
  }
  if (changed.empty()) return;
  throw runtime::input_error(
      where, ": spec.json says that layers are removed whose weights are at work: ", runtime::listing(changed),
      "; take spec.json away to use the model as the full one that it is");
}

}  // namespace

at::Tensor filled_tensor(const ExportTensor& tensor) {
  at::Tensor values = at::zeros(tensor.shape, at::kFloat);
  if (tensor.fill != Fill::pick_hidden) return values;
  const std::int64_t out = tensor.shape[0];
  values.narrow(1, 0, out).copy_(at::eye(out).view({out, out, 1, 1}));
  return values;
}

std::map<std::string, std::string> restore_base_names(const Config& config, const Spec& spec, TensorMap& weights,
                                                      const std::string& where) {
  if (spec.removed.empty() || config.model_class != spec.base.model_class) return {};
  const Program base = build_base(spec.base), own = build_base(config, base.geometry);
  const Program pruned = prune(base, spec);
  // A tool that saved the folder anew may have written more keys, so configs are compared by what they build.
  if (match_programs(base, own).matches()) {
    if (holds_all(weights, base)) take_filled(weights, dense_plan(base, pruned, where), where);
    return {};
  }
  NativeForm native = native_form(base, pruned);
  if (!native.exists() || !match_programs(build_base(native.config, base.geometry), own).matches()) return {};
  const auto& names = native.base_names;
  if (std::all_of(names.begin(), names.end(), [](const auto& pair) { return pair.first == pair.second; })) return {};
  rename(weights, names);
  return std::move(native.base_names);
}

}  // namespace laptopdiff::unet
