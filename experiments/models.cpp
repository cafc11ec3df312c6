// Helpers that open models and specs for the verbs.
#include <torch/types.h>

#include "experiments/verbs.h"
#include "runtime/error.h"
#include "runtime/progress.h"

namespace laptopdiff::experiments {

unet::Spec load_spec_for(const std::string& path, const unet::Spec& base) {
  unet::Spec spec = unet::read_spec(path);
  const Json ours = unet::comparable_config(base.base), theirs = unet::comparable_config(spec.base);
  if (base.base.class_name() != std::string(spec.base.class_name())) {
    throw runtime::input_error(path, ": made for a ", spec.base.class_name(), ", the model is a ",
                               base.base.class_name());
  }
  for (const auto& [key, value] : theirs.items()) {
    if (!ours.contains(key) || ours[key] != value) {
      throw runtime::input_error(path, ": made for another base: its `", key, "` is ", value.dump().substr(0, 80),
                                 ", the model's is ", ours.contains(key) ? ours[key].dump().substr(0, 80) : "absent");
    }
  }
  for (const auto& [key, value] : ours.items()) {
    if (!theirs.contains(key))
      throw runtime::input_error(path, ": made for another base: the model sets `", key, "`, the spec's base does not");
  }
  return spec;
}

void check_finite_weights(const runtime::TensorMap& weights, const std::string& where) {
  const std::vector<std::string> bad = runtime::non_finite_tensors(weights);
  if (bad.empty()) return;
  const std::vector<std::string> shown(bad.begin(),
                                       bad.begin() + static_cast<std::ptrdiff_t>(std::min<std::size_t>(bad.size(), 8)));
  throw runtime::non_finite_error(where, ": ", bad.size(), " tensors hold NaN or Inf: ", runtime::join(shown));
}

LoadedModel load_for_device(const std::string& model, const std::string& spec_path, const CommonOptions& common,
                            WeightsHash hash) {
  unet::Model raw = unet::load_model(model);
  LoadedModel loaded;
  loaded.spec = raw.spec;
  if (hash == WeightsHash::compute) loaded.weights_sha256 = runtime::tensors_sha256(raw.weights);
  if (!spec_path.empty()) {
    if (!raw.spec.removed.empty()) throw runtime::usage_error("--spec on a model that is pruned already: ", model);
    loaded.spec = load_spec_for(spec_path, raw.spec);
    const std::string& wanted = loaded.spec.weights_sha256;
    if (!wanted.empty() &&
        wanted != (loaded.weights_sha256.empty() ? runtime::tensors_sha256(raw.weights) : loaded.weights_sha256)) {
      throw runtime::input_error(spec_path, ": was made for other weights (weights_sha256 ", wanted.substr(0, 12),
                                 "...) than ", model);
    }
  }
  loaded.base = unet::build_base(loaded.spec.base);
  loaded.program = unet::prune(loaded.base, loaded.spec);
  check_finite_weights(raw.weights, model);
  const runtime::TensorMap selected = unet::select_weights(loaded.program, raw.weights, model);
  loaded.weights = unet::convert(selected, common.torch_dtype(), common.torch_device());
  return loaded;
}

}  // namespace laptopdiff::experiments
