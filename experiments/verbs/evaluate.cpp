// `evaluate`: numbers for a folder of pictures, with their provenance.
#include "metrics/evaluate.h"

#include <torch/types.h>

#include <cstdio>
#include <iostream>

#include "experiments/command.h"
#include "experiments/verbs.h"
#include "runtime/error.h"
#include "runtime/progress.h"

namespace laptopdiff::experiments {
namespace {

struct EvaluateVerbOptions {
  std::string images, reference, prompts, labels, models, output;
  std::vector<std::string> metrics;
  std::int64_t count = 0, reference_limit = 0, seed = 0, resamples = 1000;
  template <typename V>
  void fields(V& v) {
    v("images", images, "folder with 000000.png, ...");
    v("reference", reference, "real pictures: a data folder or a folder of PNG files (fid, kid)");
    v("prompts", prompts, "one a line, or .jsonl with `text` (clip, pick)");
    v("labels", labels, "class a line, or .jsonl with `label` (accuracy)");
    v("models", models, "folder with clip/, pick/, classifier/ as needed");
    v("metrics", metrics, "clip, pick, fid, kid, accuracy; comma separated");
    v("count", count, "use the first so many lines of prompts and labels, as `sample --count` does; 0: all");
    v("reference_limit", reference_limit, "use the first so many reference pictures; 0: all");
    v("seed", seed, "of bootstrap resamples and subsets");
    v("resamples", resamples, "bootstrap resamples for intervals");
    v("output", output, "metrics.json to write");
  }
};

}  // namespace

void run_evaluate(const Invocation& invocation) {
  const auto [options, common, settings] = parse_command<EvaluateVerbOptions>(invocation, {});
  require_option(options.images, "--images", invocation);
  require_option(options.models, "--models", invocation);
  require_option(options.output, "--output", invocation);
  if (options.seed < 0) throw runtime::usage_error("--seed ", options.seed, ": must not be negative");
  check_result(options.output, common, settings);
  const c10::InferenceMode inference;
  metrics::EvaluateOptions run;
  run.images = options.images;
  if (!options.reference.empty()) run.reference = options.reference;
  if (!options.prompts.empty()) run.prompts = options.prompts;
  if (!options.labels.empty()) run.labels = options.labels;
  run.models = options.models;
  run.metrics = options.metrics;
  run.lines_limit = options.count;
  run.reference_limit = options.reference_limit;
  run.seed = static_cast<std::uint64_t>(options.seed);
  run.resamples = options.resamples;
  run.device = common.torch_device();
  if (common.dry_run) return runtime::say("options are fine");
  Json result = metrics::evaluate(run);
  result["made_by"] = provenance(invocation);
  runtime::write_json(options.output, result);
  if (common.json) {
    std::cout << runtime::dump_json(result);
    return;
  }
  for (const auto& [name, metric] : result["metrics"].items())
    std::printf("%-10s %.6g\n", name.c_str(), metric["value"].get<double>());
}

}  // namespace laptopdiff::experiments
