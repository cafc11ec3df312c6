// `audit`: predicted against true loss over solver, random and preset masks.
#include "pruning/audit.h"

#include <torch/types.h>

#include <cmath>
#include <cstdio>
#include <iostream>

#include "experiments/inputs.h"
#include "experiments/true_losses.h"
#include "runtime/error.h"
#include "runtime/progress.h"

namespace laptopdiff::experiments {
namespace {

struct AuditVerbOptions {
  std::string model, scores, calibration, output;
  std::vector<double> keep{0.7, 0.5, 0.3};
  int random_masks = 8, fit = 0, verify = 8;
  std::int64_t samples = 0, batch = 0, seed = 0;
  std::vector<std::string> solvers, presets, specs;
  MemoryOption memory;
  WeightOptions weights;
  template <typename V>
  void fields(V& v) {
    v("model", model, "U-Net folder");
    v("scores", scores, "scores.json from `score`; several, comma separated: masks of each, predictions of the first");
    v("calibration", calibration, "safetensors from `calibrate`");
    v("output", output, "audit.json to write");
    v("keep", keep, "shares of the parameters kept, comma separated");
    v("solvers", solvers, "whose masks, comma separated; default: all that measure nothing");
    v("verify", verify, "the work of the solver `verify`, in masks on all samples");
    v("random_masks", random_masks, "random masks at each share");
    v("fit", fit, "more random masks at each share, to fit a correction of the predictions to; 0: none");
    v("presets", presets, "handcrafted presets to measure too, comma separated");
    v("specs", specs, "spec files to measure too, comma separated");
    v("samples", samples, "use the first N calibration samples; 0: all");
    v("batch", batch, "samples at once; 0: by memory");
    memory.fields(v);
    weights.fields(v);
    v("seed", seed, "seed of the random masks");
  }
};

// "-" where a number is not defined, such as the correlation of equal masks.
std::string number(double value) {
  char text[32];
  std::snprintf(text, sizeof text, "%.3f", value);
  return std::isfinite(value) ? text : "-";
}

void print_agreement(const std::string& name, const pruning::Agreement& a) {
  std::printf("%-22s %3d masks: Spearman %s, R^2 (log) %s, true/predicted %s (%s to %s), within 25 %%: %s\n",
              name.c_str(), a.rows, number(a.spearman).c_str(), number(a.r2_log).c_str(),
              number(a.ratio_median).c_str(), number(a.ratio_min).c_str(), number(a.ratio_max).c_str(),
              number(a.within_quarter).c_str());
}

void print_audit(const pruning::Audit& audit) {
  std::printf("%-32s %6s %12s %12s %12s\n", "mask", "kept", "additive", "gram", "true");
  for (const pruning::AuditRow& row : audit.rows) {
    std::printf("%-32s %6.3f %12s %12s %12s\n", row.name.c_str(), row.keep,
                row.additive ? runtime::cat(*row.additive).c_str() : "-",
                row.gram ? runtime::cat(*row.gram).c_str() : "-",
                std::isfinite(row.true_loss) ? runtime::cat(row.true_loss).c_str() : "-");
  }
  for (const auto& [name, numbers] : audit.agreement) print_agreement(name, numbers);
  if (audit.criteria.size() < 2) return;
  std::printf("sums of each criterion over the random masks (ranks):\n");
  for (const auto& [name, numbers] : audit.criteria)
    std::printf("%-22s Spearman %s\n", name.c_str(), number(numbers.spearman).c_str());
}

void check_audit_options(const AuditVerbOptions& options, const Invocation& invocation) {
  require_option(options.model, "MODEL", invocation);
  require_option(options.scores, "--scores", invocation);
  require_option(options.calibration, "--calibration", invocation);
  require_option(options.output, "--output", invocation);
  if (options.keep.empty() && options.specs.empty() && options.presets.empty())
    throw runtime::usage_error("--keep is empty; for example --keep 0.7,0.5,0.3, or give masks with --specs");
  if (options.random_masks < 0 || options.fit < 0 || options.samples < 0 || options.batch < 0 || options.seed < 0) {
    throw runtime::usage_error("audit: --random-masks, --fit, --samples, --batch and --seed must not be negative");
  }
  for (const double keep : options.keep) {
    if (!(keep > 0) || keep > 1) throw runtime::usage_error("--keep ", keep, ": expected shares between 0 and 1");
  }
  for (const std::string& solver : options.solvers) (void)pruning::solver_row(solver);
}

}  // namespace

void run_audit(const Invocation& invocation) {
  const auto [options, common, settings] = parse_command<AuditVerbOptions>(invocation, {"model"});
  check_audit_options(options, invocation);
  check_result(options.output, common, settings);
  const std::vector<std::string> files = split_files(options.scores);
  std::vector<pruning::Scores> scores;
  for (const std::string& file : files) scores.push_back(pruning::read_scores(file));
  TrueLossSource source({options.model, options.calibration, options.samples, options.batch,
                         options.memory.bytes(common.torch_device()), options.weights},
                        scores.front(), files.front(), common);
  pruning::AuditOptions run;
  for (std::size_t i = 1; i < scores.size(); ++i) source.require_made_for(scores[i], files[i]);
  for (const std::string& file : options.specs) run.specs.push_back({file, load_spec_for(file, source.spec())});
  run.keep = options.keep;
  run.random_masks = options.random_masks;
  run.fit_masks = options.fit;
  run.solvers = options.solvers;
  run.presets = options.presets;
  run.seed = static_cast<std::uint64_t>(options.seed);
  run.tools.measure = source.losses(scores.front());
  run.tools.verify = {static_cast<double>(options.verify), source.meter().few_share()};
  if (common.dry_run) return runtime::say("inputs are fine");
  const pruning::Audit audit = pruning::run_audit(source.base(), source.meter(), scores, run);
  Json json = pruning::audit_json(audit);
  json["samples"] = source.samples();
  json["made_by"] = provenance(invocation);
  runtime::write_json(options.output, json);
  if (common.json) std::cout << runtime::dump_json(json);
  else print_audit(audit);
}

}  // namespace laptopdiff::experiments
