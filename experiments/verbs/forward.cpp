// `forward`: one raw pass of a U-Net over inputs from a file.
#include <torch/types.h>

#include <iostream>

#include "experiments/command.h"
#include "experiments/verbs.h"
#include "runtime/error.h"
#include "runtime/progress.h"

namespace laptopdiff::experiments {
namespace {

struct ForwardOptions {
  std::string model, inputs, output, spec, taps, shell = "drop";
  std::vector<std::string> without;
  WeightOptions weights;
  template <typename V>
  void fields(V& v) {
    v("model", model, "U-Net folder, pipeline folder or single-file checkpoint");
    v("inputs", inputs, "safetensors with sample, timestep, encoder_hidden_states, ...");
    v("output", output, "safetensors to write: sample, and one tensor a tap");
    v("spec", spec, "spec.json: run the pruned model");
    v("without", without, "layers to bypass, comma separated");
    v("shell", shell, "drop or keep the shell of an emptied Transformer2DModel (with --without)");
    v("taps", taps, "all, or module paths, comma separated: hidden states to write");
    weights.fields(v);
  }
};

std::vector<unet::Tap> wanted_taps(const unet::Program& base, const std::string& text) {
  if (text.empty()) return {};
  const std::vector<unet::Tap> all = unet::find_taps(base);
  if (text == "all") return all;
  std::vector<std::string> known;
  for (const unet::Tap& tap : all) known.push_back(tap.path);
  std::vector<unet::Tap> taps;
  std::stringstream names(text);
  for (std::string name; std::getline(names, name, ',');) {
    const auto found = std::find(known.begin(), known.end(), name);
    if (found == known.end())
      throw runtime::usage_error("--taps: no module `", name, "`", runtime::did_you_mean(name, known));
    taps.push_back(all[static_cast<std::size_t>(found - known.begin())]);
  }
  std::sort(taps.begin(), taps.end(), [](const auto& a, const auto& b) { return a.position < b.position; });
  return taps;
}

bool is_finite(const at::Tensor& tensor) { return at::isfinite(tensor).all().item<bool>(); }

}  // namespace

void run_forward(const Invocation& invocation) {
  const auto [options, common, settings] = parse_command<ForwardOptions>(invocation, {"model"});
  require_option(options.model, "MODEL", invocation);
  require_option(options.inputs, "--inputs", invocation);
  require_option(options.output, "--output", invocation);
  check_result(options.output, common, settings);
  if (options.shell != "drop" && options.shell != "keep")
    throw runtime::usage_error("--shell ", options.shell, ": expected drop or keep");
  const c10::InferenceMode inference;
  LoadedModel model = load_for_device(options.model, options.spec, common, WeightsHash::skip, options.weights);
  if (!options.without.empty()) {
    if (options.spec.empty()) model.spec.shell = options.shell == "keep" ? unet::Shell::keep : unet::Shell::drop;
    for (const std::string& layer : options.without) model.spec.removed.push_back({layer, unet::How::bypass});
    try {
      model.program = unet::prune(model.base, model.spec);
    } catch (const runtime::Error& error) {
      throw runtime::usage_error("--without: ", error.what());
    }
  }
  const unet::Inputs inputs = unet::inputs_from(runtime::read_tensors(options.inputs), model.spec.base, options.inputs);
  const std::vector<unet::Tap> taps = wanted_taps(model.base, options.taps);
  if (common.dry_run) {
    runtime::say(runtime::cat("would run ", inputs.batch(), " rows through ", model.program.steps.size(), " steps"));
    return;
  }
  const unet::Executor executor = unet::Executor::for_inference(model.program, std::move(model.weights));
  runtime::TensorMap outputs;
  std::string first_bad;
  const at::Tensor sample = executor.forward(unet::to(inputs, common.torch_dtype(), common.torch_device()), taps,
                                             [&](const std::string& path, const at::Tensor& hidden) {
                                               outputs[path] = hidden.to(at::kFloat);
                                               if (first_bad.empty() && !is_finite(hidden)) first_bad = path;
                                             });
  outputs["sample"] = sample.to(at::kFloat);
  runtime::write_tensors(options.output, outputs);  // NaN or not: it shows where they begin
  if (is_finite(sample)) return;
  throw runtime::non_finite_error(options.output, ": the output holds NaN or Inf",
                                  first_bad.empty() ? std::string("; --taps all shows where it begins")
                                                    : runtime::cat(", first seen after ", first_bad));
}

}  // namespace laptopdiff::experiments
