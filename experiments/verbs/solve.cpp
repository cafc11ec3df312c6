// `solve`: scores and a budget (or a preset's name) in, a spec out; or the ratio curve, or a spec an interval.
#include <algorithm>
#include <cstdio>
#include <iostream>

#include "experiments/solving.h"
#include "pruning/intervals.h"
#include "pruning/presets.h"
#include "runtime/error.h"
#include "runtime/progress.h"

namespace laptopdiff::experiments {
namespace {

void print_removed_layers(const unet::Spec& spec) {
  for (const unet::Removal& removal : spec.removed) {
    std::printf("  %s %s\n", removal.how == unet::How::drop ? "drop  " : "bypass", removal.layer.c_str());
  }
}

// Kept and removed of parameters and MACs, and of what else the budget counts.
void print_summary(const unet::Spec& spec, const pruning::CostModel& costs,
                   const std::vector<pruning::Resource>& counted) {
  const unet::Program pruned = unet::prune(costs.base(), spec);
  std::vector<pruning::Resource> resources = {pruning::Resource::params, pruning::Resource::macs};
  for (const pruning::Resource resource : counted) {
    if (std::find(resources.begin(), resources.end(), resource) == resources.end()) resources.push_back(resource);
  }
  for (const pruning::Resource resource : resources) {
    const double kept = costs.amount(pruned, resource), whole = costs.total(resource);
    const bool timed = resource == pruning::Resource::latency;
    std::printf("%-11s kept %s of %s (%.2f %%), removed %.2f %%%s\n", pruning::resource_name(resource),
                pruning::amount_text(resource, kept).c_str(), pruning::amount_text(resource, whole).c_str(),
                100 * kept / whole, 100 * (whole - kept) / whole,
                timed ? (" on " + pruning::device_text(*costs.latency())).c_str() : "");
  }
}

void print_measured(const Json& made_by) {
  if (!made_by.contains("true_loss")) return;
  std::printf("true loss %.6g (predicted %.6g), measured with %.1f forwards a sample on %d samples\n",
              made_by["true_loss"].get<double>(), made_by["predicted_loss"].get<double>(),
              made_by["measured"]["forwards"].get<double>(), made_by["measured"]["samples"].get<int>());
}

void print_set(const Json& set, const pruning::CostModel& costs, const std::vector<pruning::Resource>& counted) {
  for (const Json& student : set.at("students")) {
    const unet::Spec spec = unet::parse_spec(student, "spec");
    std::printf("timesteps [%d, %d): %zu layers removed\n", spec.first_timestep, spec.last_timestep,
                spec.removed.size());
    print_summary(spec, costs, counted);
    print_measured(spec.made_by);
  }
  std::printf("overlap of the removed layers (Jaccard):\n");
  for (const Json& row : set.at("made_by").at("overlap").at("jaccard")) {
    for (const Json& value : row) std::printf(" %.2f", value.get<double>());
    std::printf("\n");
  }
}

// Flags that would change nothing in this run are refused: whoever gives one expects something of it.
void check_effects(const SolveOptions& options, const Json& settings) {
  const auto rule = pruning::parse_rule(options.by);
  const bool exact = options.solver == "exact_greedy", intervals = options.intervals > 0;
  const struct {
    const char* flag;
    bool has_effect;
    const char* why;
  } rows[] = {
      {"per_round", exact, "is for --solver exact_greedy"},
      {"verify", !exact || options.verify == 0, "is for other solvers: exact_greedy measures what it removes itself"},
      {"by", intervals, "says how --intervals are cut; give --intervals N"},
      {"pipeline", intervals && rule == pruning::IntervalRule::snr, "is read for --intervals with --by snr alone"},
      {"lora", measures_losses(options),
       "is merged where true losses are measured: --solver verify or exact_greedy, or --verify"},
      {"variant", measures_losses(options),
       "says which weights true losses are measured on: --solver verify or exact_greedy, or --verify"},
      {"intervals", !intervals || !options.output.empty(), "makes a spec set; give --output FILE"},
  };
  for (const auto& row : rows) {
    if (settings.contains(row.flag) && !row.has_effect)
      throw runtime::usage_error("solve: `", row.flag, "` has no effect here: it ", row.why);
  }
}

void check_options(const SolveOptions& options, const Json& settings) {
  if (options.preset.empty() == options.scores.empty())
    throw runtime::usage_error("solve: give either --scores with --budget, or --preset");
  for (const char* flag :
       {"budget", "must_keep", "must_remove", "solver", "calibration", "verify", "per_round", "intervals", "by",
        "pipeline", "samples", "batch", "latency", "curve", "keep", "lora", "variant"}) {
    if (!options.preset.empty() && settings.contains(flag))
      throw runtime::usage_error("solve: a preset fixes what is removed; `", flag, "` cannot be given with it");
  }
  if (options.verify < 0 || options.intervals < 0 || options.samples < 0 || options.batch < 0 ||
      options.per_round < 1) {
    throw runtime::usage_error(
        "solve: --verify, --intervals, --samples and --batch must not be negative, --per-round at least 1");
  }
  check_geometry(options.latent, options.tokens);
  if (options.keep.empty() == false && options.curve.empty())
    throw runtime::usage_error("solve: --keep says the points of a curve; give --curve FILE, or use --budget");
  for (const double keep : options.keep) {
    if (!(keep > 0) || keep > 1) throw runtime::usage_error("--keep ", keep, ": expected shares between 0 and 1");
  }
  check_effects(options, settings);
  const auto place = [](const std::string& path) { return std::filesystem::weakly_canonical(path); };
  if (!options.curve.empty() && !options.output.empty() && place(options.curve) == place(options.output))
    throw runtime::usage_error("solve: --curve and --output are the same file, ", options.output, "; give two");
}

// What a run makes: files, and a table of each or one JSON document of all on stdout.
class Results {
 public:
  explicit Results(const CommonOptions& common) : common_(common) {}

  template <typename Print>
  void add(const char* name, const Json& json, const std::string& path, const Print& print) {
    if (!common_.dry_run) runtime::write_json(path, json);
    if (common_.json) documents_[name] = json;
    else print();
  }
  // A single document stands for itself; a curve and a spec are {"curve", "spec"}.
  void print_json() const {
    if (common_.json) std::cout << runtime::dump_json(documents_.size() == 1 ? *documents_.begin() : documents_);
  }

 private:
  const CommonOptions& common_;
  Json documents_ = Json::object();
};

std::vector<pruning::Resource> resources_of(const std::vector<pruning::KeepBudget>& budgets) {
  std::vector<pruning::Resource> resources;
  for (const pruning::KeepBudget& budget : budgets) resources.push_back(budget.resource);
  return resources;
}

void make_results(const Invocation& invocation, SolveOptions& options, const CommonOptions& common,
                  const Json& settings, Results& results) {
  const bool wants_spec = options.curve.empty() || !options.output.empty();
  if (wants_spec) require_option(options.output, "--output", invocation);
  for (const std::string& file : {options.output, options.curve}) {
    if (!file.empty()) check_result(file, common, settings);
  }
  unet::Spec spec = unet::load_architecture(options.model);
  if (!spec.removed.empty())
    throw runtime::usage_error(options.model, " is pruned already; specs are of a full base model");
  const int latent = static_cast<int>(options.latent);
  const unet::Program base = unet::build_base(spec.base, {latent, latent, static_cast<int>(options.tokens)});
  const pruning::CostModel costs(base, read_latency_option(options.latency));
  if (!options.preset.empty()) {
    spec.removed = pruning::preset_removals(options.preset, base);
    spec.made_by = {{"preset", options.preset}};
    spec.made_by.update(provenance(invocation));
    return results.add("spec", unet::spec_json(spec), options.output, [&] {
      print_summary(spec, costs, {});
      print_removed_layers(spec);
    });
  }
  if (!wants_spec && options.budget.empty()) options.budget = "params=1";  // only says what the curve is over
  require_option(options.budget, "--budget", invocation);
  Solving solving(options, common, spec, base);
  const auto counted = resources_of(solving.budgets());
  if (!options.curve.empty()) {
    Json curve = solving.curve();
    curve["made_by"] = provenance(invocation);
    results.add("curve", curve, options.curve, [&] {
      std::printf("%zu points of %zu choices over %s\n", curve["points"].size(), curve["choices"].get<std::size_t>(),
                  curve["resource"].get<std::string>().c_str());
    });
  }
  if (!wants_spec) return;
  if (options.intervals > 0) {
    Json set = solving.masks_of_intervals();
    set["made_by"].update(provenance(invocation));
    return results.add("spec", set, options.output, [&] { print_set(set, costs, counted); });
  }
  spec = solving.one_mask();
  spec.made_by.update(provenance(invocation));
  results.add("spec", unet::spec_json(spec), options.output, [&] {
    print_summary(spec, costs, counted);
    print_measured(spec.made_by);
    print_removed_layers(spec);
  });
}

}  // namespace

void run_solve(const Invocation& invocation) {
  auto [options, common, settings] = parse_command<SolveOptions>(invocation, {"model"});
  require_option(options.model, "MODEL", invocation);
  check_options(options, settings);
  Results results(common);
  make_results(invocation, options, common, settings, results);
  results.print_json();
}

}  // namespace laptopdiff::experiments
