// `audit`: predicted against true loss over solver, random and preset masks.
#include "pruning/audit.h"

#include <torch/types.h>

#include <cmath>
#include <cstdio>
#include <iostream>

#include "experiments/command.h"
#include "experiments/verbs.h"
#include "pruning/presets.h"
#include "runtime/error.h"
#include "runtime/progress.h"

namespace laptopdiff::experiments {
namespace {

struct AuditVerbOptions {
  std::string model, scores, calibration, output;
  std::vector<double> keep{0.7, 0.5, 0.3};
  int random_masks = 8;
  std::int64_t samples = 0, batch = 0, seed = 0;
  std::vector<std::string> presets;
  template <typename V>
  void fields(V& v) {
    v("model", model, "U-Net folder");
    v("scores", scores, "scores.json from `score`");
    v("calibration", calibration, "safetensors from `calibrate`");
    v("output", output, "audit.json to write");
    v("keep", keep, "shares of the parameters kept, comma separated");
    v("random_masks", random_masks, "random masks at each share");
    v("presets", presets, "handcrafted presets to measure too, comma separated");
    v("samples", samples, "use the first N calibration samples; 0: all");
    v("batch", batch, "samples at once; 0: by memory");
    v("seed", seed, "seed of the random masks");
  }
};

// "-" where a number is not defined, such as the correlation of equal masks.
std::string number(double value) {
  char text[32];
  std::snprintf(text, sizeof text, "%.3f", value);
  return std::isfinite(value) ? text : "-";
}

void print_audit(const pruning::Audit& audit) {
  std::printf("%-24s %6s %12s %12s %12s\n", "mask", "kept", "additive", "gram", "true");
  for (const pruning::AuditRow& row : audit.rows) {
    std::printf("%-24s %6.3f %12s %12s %12.5g\n", row.name.c_str(), row.keep,
                row.additive ? runtime::cat(*row.additive).c_str() : "-",
                row.gram ? runtime::cat(*row.gram).c_str() : "-", row.true_loss);
  }
  const auto line = [](const char* name, const pruning::Agreement& a) {
    std::printf("%-18s %3d masks: Spearman %s, R^2 (log) %s, true/predicted %s (%s to %s)\n", name, a.rows,
                number(a.spearman).c_str(), number(a.r2_log).c_str(), number(a.ratio_median).c_str(),
                number(a.ratio_min).c_str(), number(a.ratio_max).c_str());
  };
  line("additive", audit.additive_all);
  line("gram", audit.gram_all);
}

}  // namespace

void run_audit(const Invocation& invocation) {
  const auto [options, common, settings] = parse_command<AuditVerbOptions>(invocation, {"model"});
  require_option(options.model, "MODEL", invocation);
  require_option(options.scores, "--scores", invocation);
  require_option(options.calibration, "--calibration", invocation);
  require_option(options.output, "--output", invocation);
  if (options.keep.empty()) throw runtime::usage_error("--keep is empty; for example --keep 0.7,0.5,0.3");
  if (options.random_masks < 0 || options.samples < 0 || options.batch < 0 || options.seed < 0) {
    throw runtime::usage_error("audit: --random-masks, --samples, --batch and --seed must not be negative");
  }
  for (const double keep : options.keep) {
    if (!(keep > 0) || keep > 1) throw runtime::usage_error("--keep ", keep, ": expected shares between 0 and 1");
  }
  runtime::check_output(options.output, common.existing());
  LoadedModel model = load_for_device(options.model, "", common, WeightsHash::compute);
  const pruning::Scores scores = pruning::read_scores(options.scores);
  if (scores.weights_sha256 != model.weights_sha256) {
    throw runtime::input_error(options.scores, ": scores of other weights (", scores.weights_sha256.substr(0, 12),
                               "...) than ", options.model);
  }
  unet::Inputs inputs =
      unet::inputs_from(runtime::read_tensors(options.calibration), model.spec.base, options.calibration);
  if (options.samples > 0) inputs = unet::slice(inputs, 0, std::min(options.samples, inputs.batch()));
  pruning::AuditOptions run;
  run.keep = options.keep;
  run.random_masks = options.random_masks;
  run.presets = options.presets;
  run.seed = static_cast<std::uint64_t>(options.seed);
  run.batch = options.batch;
  if (common.dry_run) return runtime::say("inputs are fine");
  const unet::Executor executor(model.base, model.weights);
  const pruning::Audit audit = pruning::run_audit(model.base, executor, scores,
                                                  unet::to(inputs, common.torch_dtype(), common.torch_device()), run);
  Json json = pruning::audit_json(audit);
  json["samples"] = inputs.batch();
  json["made_by"] = provenance(invocation);
  runtime::write_json(options.output, json);
  if (common.json) std::cout << runtime::dump_json(json);
  else print_audit(audit);
}

}  // namespace laptopdiff::experiments
