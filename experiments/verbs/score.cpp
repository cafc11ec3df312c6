// `score`: what each layer is worth, from one pass over a calibration set.
#include <torch/types.h>

#include <cstdio>
#include <iostream>

#include "experiments/command.h"
#include "experiments/verbs.h"
#include "pruning/output_loss.h"
#include "runtime/error.h"
#include "runtime/hash.h"
#include "runtime/progress.h"

namespace laptopdiff::experiments {
namespace {

struct ScoreOptions {
  std::string model, calibration, output, criterion = "output_loss", shell = "drop", memory = "4GiB";
  std::int64_t samples = 0, batch = 0;
  WeightOptions weights;
  template <typename V>
  void fields(V& v) {
    v("model", model, "U-Net folder, pipeline folder or single-file checkpoint");
    v("calibration", calibration, "safetensors from `calibrate`");
    v("output", output, "scores.json to write");
    v("criterion", criterion, "output_loss (with its Gram matrix)");
    v("shell", shell, "drop: an emptied Transformer2DModel loses its shell; keep: the literal reading");
    v("samples", samples, "use the first N calibration samples; 0: all");
    v("batch", batch, "samples evaluated at once; 0: as many as the memory limit allows");
    v("memory", memory, "memory for variants that run together: 512MiB, 8GiB, ...");
    weights.fields(v);
  }
};

std::int64_t parse_memory(const std::string& text) {
  std::size_t used = 0;
  double value = 0;
  try {
    value = std::stod(text, &used);
  } catch (const std::exception&) {
    used = 0;
  }
  const std::string unit = text.substr(used);
  const double scale = unit == "GiB" ? 0x1p30 : unit == "MiB" ? 0x1p20 : unit == "KiB" ? 0x1p10 : unit.empty() ? 1 : 0;
  if (used == 0 || scale == 0 || !(value > 0) || value * scale > 0x1p60) {
    throw runtime::usage_error("--memory ", text, ": expected a size like 512MiB or 8GiB");
  }
  return static_cast<std::int64_t>(value * scale);
}

void print_scores(const pruning::Scores& scores) {
  std::printf("%-58s %-12s %13s %12s %10s\n", "unit", "kind", "params", "score", "stderr");
  for (std::size_t i = 0; i < scores.units.size(); ++i) {
    const pruning::Estimate& e = scores.unit_scores[i];
    std::printf("%-58s %-12s %13s %12s %10s\n", scores.units[i].layer.c_str(), unet::unit_name(scores.units[i].kind),
                runtime::with_commas(scores.units[i].params).c_str(), e.value ? runtime::cat(*e.value).c_str() : "null",
                runtime::cat(e.standard_error).c_str());
  }
}

}  // namespace

void run_score(const Invocation& invocation) {
  const auto [options, common, settings] = parse_command<ScoreOptions>(invocation, {"model"});
  require_option(options.model, "MODEL", invocation);
  require_option(options.calibration, "--calibration", invocation);
  require_option(options.output, "--output", invocation);
  if (options.criterion != "output_loss") {
    throw runtime::usage_error("unknown criterion `", options.criterion, "`",
                               runtime::did_you_mean(options.criterion, {"output_loss"}));
  }
  if (options.shell != "drop" && options.shell != "keep")
    throw runtime::usage_error("--shell ", options.shell, ": expected drop or keep");
  if (options.samples < 0 || options.batch < 0)
    throw runtime::usage_error("--samples and --batch must not be negative");
  runtime::check_output(options.output, common.existing());
  pruning::OutputLossOptions run;
  run.engine.memory_bytes = parse_memory(options.memory);
  run.batch = options.batch;
  run.shell = options.shell == "keep" ? unet::Shell::keep : unet::Shell::drop;

  LoadedModel model = load_for_device(options.model, "", common, WeightsHash::compute, options.weights);
  if (!model.spec.removed.empty())
    throw runtime::usage_error(options.model, " is pruned already; scores are of a full base model");
  const runtime::TensorMap tensors = runtime::read_tensors(options.calibration);
  unet::Inputs inputs = unet::inputs_from(tensors, model.spec.base, options.calibration);
  if (options.samples > inputs.batch()) {
    throw runtime::usage_error("--samples ", options.samples, ": the calibration set has ", inputs.batch());
  }
  if (options.samples > 0) inputs = unet::slice(inputs, 0, options.samples);
  inputs = unet::to(inputs, common.torch_dtype(), common.torch_device());
  const std::string calibration = runtime::tensors_sha256(tensors);
  run.state = options.output + ".partial.safetensors";
  run.key = runtime::cat(model.weights_sha256, " ", calibration, " ", options.shell, " ", common.dtype);
  if (common.dry_run)
    return runtime::say(
        runtime::cat("would score ", unet::find_units(model.base).size(), " units on ", inputs.batch(), " samples"));

  const unet::Executor executor(model.base, model.weights);
  pruning::OutputLossReport report;
  pruning::Scores scores = pruning::score_output_loss(model.base, executor, inputs, run, &report);
  scores.weights_sha256 = model.weights_sha256;
  scores.calibration_sha256 = calibration;
  scores.made_by = provenance(invocation);
  scores.made_by["settings"] = settings;
  const Json json = pruning::scores_json(scores);
  runtime::write_json(options.output, json);
  std::error_code ignored;
  std::filesystem::remove(run.state, ignored);
  if (common.json) std::cout << runtime::dump_json(json);
  else print_scores(scores);
  runtime::say(runtime::cat("saved ", static_cast<int>(report.forwards_saved), " of ",
                            scores.units.size() + scores.shells.size() + 1,
                            " naive forwards a sample by sharing prefixes"));
}

}  // namespace laptopdiff::experiments
