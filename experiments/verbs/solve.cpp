// `solve`: scores and a budget (or a preset's name) in, a spec out.
#include "pruning/solve.h"

#include <cmath>
#include <cstdio>
#include <iostream>

#include "experiments/command.h"
#include "experiments/verbs.h"
#include "pruning/budgets.h"
#include "pruning/presets.h"
#include "runtime/error.h"
#include "runtime/progress.h"

namespace laptopdiff::experiments {
namespace {

struct SolveOptions {
  std::string model, scores, budget, solver = "knapsack", preset, output;
  std::vector<std::string> must_keep, must_remove;
  template <typename V>
  void fields(V& v) {
    v("model", model, "U-Net folder or config.json");
    v("scores", scores, "scores.json from `score`");
    v("budget", budget, "what is kept at most: params=0.5[,macs=0.6]; amounts above 1 and params=@PRESET work too");
    v("solver", solver, "knapsack, gram or greedy");
    v("preset", preset,
      "a handcrafted student instead: bk-sdm-base, bk-sdm-small, bk-sdm-tiny, segmind-small, segmind-tiny; of SDXL "
      "koala-1b, koala-700m, ssd-1b, segmind-vega");
    v("must_keep", must_keep, "layers that stay, comma separated");
    v("must_remove", must_remove, "layers that go, comma separated");
    v("output", output, "spec.json to write");
  }
};

// The first key in which the scores' base differs from the model's.
void require_same_base(const pruning::Scores& scores, const unet::Config& model, const std::string& where) {
  const Json theirs = unet::comparable_config(scores.base), ours = unet::comparable_config(model);
  if (theirs == ours) return;
  for (const auto& [key, value] : ours.items()) {
    if (!theirs.contains(key) || theirs[key] != value) {
      throw runtime::input_error(where, ": scores of another base: `", key, "` is ",
                                 theirs.contains(key) ? theirs[key].dump() : "absent", " there, ", value.dump(),
                                 " in the model");
    }
  }
  throw runtime::input_error(where, ": scores of another base model");
}

unet::Spec solve_scores(const SolveOptions& options, const unet::Spec& base_spec, const unet::Program& base) {
  const pruning::Scores scores = pruning::read_scores(options.scores);
  require_same_base(scores, base_spec.base, options.scores);
  const auto budgets = pruning::parse_budgets(options.budget, base);
  const pruning::Problem problem = pruning::make_problem(scores, base, budgets, options.must_keep, options.must_remove);
  const pruning::Solution solution = pruning::solve_by_name(options.solver, problem);
  unet::Spec spec = base_spec;
  spec.shell = scores.shell;
  spec.weights_sha256 = scores.weights_sha256;
  spec.removed = pruning::removals_of(scores, solution.removed);
  spec.made_by = {{"criterion", scores.criterion},
                  {"solver", options.solver},
                  {"scores", options.scores},
                  {"budget", options.budget},
                  {"predicted_loss", solution.loss},
                  {"bound", std::isfinite(solution.bound) ? Json(solution.bound) : Json()},  // greedy knows none
                  {"proven_optimal", solution.proven_optimal}};
  return spec;
}

void print_summary(const unet::Spec& spec, const unet::Program& base) {
  const unet::Program pruned = unet::prune(base, spec);
  const auto line = [](const char* name, std::int64_t kept, std::int64_t whole) {
    std::printf("%-7s kept %s of %s (%.2f %%), removed %.2f %%\n", name, runtime::with_commas(kept).c_str(),
                runtime::with_commas(whole).c_str(), 100.0 * static_cast<double>(kept) / static_cast<double>(whole),
                100.0 * static_cast<double>(whole - kept) / static_cast<double>(whole));
  };
  line("params", pruned.params(), base.params());
  line("macs", pruned.macs(), base.macs());
  for (const unet::Removal& removal : spec.removed) {
    std::printf("  %s %s\n", removal.how == unet::How::drop ? "drop  " : "bypass", removal.layer.c_str());
  }
}

}  // namespace

void run_solve(const Invocation& invocation) {
  const auto [options, common, settings] = parse_command<SolveOptions>(invocation, {"model"});
  require_option(options.model, "MODEL", invocation);
  require_option(options.output, "--output", invocation);
  if (options.preset.empty() == options.scores.empty())
    throw runtime::usage_error("solve: give either --scores with --budget, or --preset");
  for (const char* flag : {"budget", "must_keep", "must_remove", "solver"}) {
    if (!options.preset.empty() && settings.contains(flag))
      throw runtime::usage_error("solve: a preset fixes what is removed; `", flag, "` cannot be given with it");
  }
  runtime::check_output(options.output, common.existing());
  unet::Spec spec = unet::load_architecture(options.model);
  if (!spec.removed.empty())
    throw runtime::usage_error(options.model, " is pruned already; specs are of a full base model");
  const unet::Program base = unet::build_base(spec.base);
  if (!options.preset.empty()) {
    spec.removed = pruning::preset_removals(options.preset, base);
    spec.made_by = {{"preset", options.preset}};
  } else {
    require_option(options.budget, "--budget", invocation);
    spec = solve_scores(options, spec, base);
  }
  spec.made_by.update(provenance(invocation));
  const Json json = unet::spec_json(spec);
  if (!common.dry_run) runtime::write_json(options.output, json);
  if (common.json) std::cout << runtime::dump_json(json);
  else print_summary(spec, base);
}

}  // namespace laptopdiff::experiments
