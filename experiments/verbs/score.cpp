// `score`: what each layer is worth, by a criterion, from one pass over a calibration set.
#include <ATen/Parallel.h>
#include <torch/cuda.h>
#include <torch/types.h>
#include <unistd.h>

#include <cmath>
#include <cstdio>
#include <iostream>

#include "experiments/calibration_file.h"
#include "experiments/command.h"
#include "experiments/criterion_needs.h"
#include "experiments/variant_sampler.h"
#include "experiments/verbs.h"
#include "pruning/criteria.h"
#include "pruning/stability.h"
#include "runtime/error.h"
#include "runtime/hash.h"
#include "runtime/processes.h"
#include "runtime/progress.h"

namespace laptopdiff::experiments {
namespace {

constexpr int kSchedule = 1000;  // timesteps that bins divide; what a spec covers

struct ScoreOptions {
  std::string model, calibration, output, criterion = "output_loss", shell = "drop", until, solver;
  std::int64_t samples = 0, batch = 0, seed = 0;
  int bins = 0;
  std::vector<double> keep{0.7, 0.5, 0.3};
  MemoryOption memory;
  WeightOptions weights;
  VariantSampling sampling;
  template <typename V>
  void fields(V& v) {
    static const std::string criteria = "what a layer is worth by, one of\n" + pruning::criteria_text();
    v("model", model, "U-Net folder, pipeline folder or single-file checkpoint");
    v("calibration", calibration, "safetensors from `calibrate`");
    v("output", output, "scores.json to write");
    v("criterion", criterion, criteria.c_str());
    v("shell", shell, "drop: an emptied Transformer2DModel loses its shell; keep: the literal reading");
    v("samples", samples, "use the first N calibration samples, at most; 0: all");
    v("batch", batch,
      "samples evaluated at once; 0: as many as the memory limit allows, at most 32. block_influence: 0 is 8; taylor "
      "and fisher: one at a time, only pieces of unfinished work are so large (0: 8)");
    memory.fields(v);
    v("bins", bins, "also the scores of N equal intervals of timesteps; 0: none");
    v("until", until, "stable: stop when more samples would not change the masks at --keep");
    v("keep", keep, "with --until stable: shares of the parameters kept, comma separated");
    v("solver", solver, "with --until stable: knapsack (default), greedy or gram (by its local search)");
    v("seed", seed, "of the criterion `random`, of sampled pictures and of the resamples of --until stable");
    sampling.fields(v);
    weights.fields(v);
  }
};

// A setting that would change nothing: something else was meant.
void refuse_idle(const pruning::Criterion& criterion, const Json& settings) {
  std::vector<std::string> idle;
  for (const auto& [name, value] : settings.items()) {
    if (!has_effect(criterion, name)) idle.push_back(runtime::cat("`", name, "`"));
  }
  if (idle.empty()) return;
  throw runtime::usage_error(runtime::join(idle), idle.size() == 1 ? " changes" : " change",
                             " nothing of the criterion `", criterion.name, "`; leave ",
                             idle.size() == 1 ? "it" : "them", " out");
}

void check_options(const ScoreOptions& options, const pruning::Criterion& criterion, const Json& settings,
                   const Invocation& invocation) {
  require_option(options.model, "MODEL", invocation);
  require_option(options.output, "--output", invocation);
  if (is_calibrated(criterion)) require_option(options.calibration, "--calibration", invocation);
  if (options.shell != "drop" && options.shell != "keep")
    throw runtime::usage_error("--shell ", options.shell, ": expected drop or keep");
  if (options.samples < 0 || options.batch < 0 || options.seed < 0)
    throw runtime::usage_error("--samples, --batch and --seed must not be negative");
  if (options.bins < 0 || options.bins > kSchedule)
    throw runtime::usage_error("--bins ", options.bins, ": expected 1 to ", kSchedule, ", or 0 for none");
  if (!options.until.empty() && options.until != "stable")
    throw runtime::usage_error("--until ", options.until, ": expected stable");
  if (options.until.empty() && !options.solver.empty())
    throw runtime::usage_error("--solver belongs to --until stable; the masks are made by `solve`");
  if (options.until.empty() && settings.contains("keep"))
    throw runtime::usage_error("--keep belongs to --until stable; `solve` takes a --budget");
  if (!options.until.empty() && options.keep.empty())
    throw runtime::usage_error("--keep is empty; for example --keep 0.7,0.5,0.3");
  for (const double keep : options.keep) {
    if (!(keep > 0) || keep > 1) throw runtime::usage_error("--keep ", keep, ": expected shares between 0 and 1");
  }
  for (const auto& [flag, given] : {std::pair{"--bins", options.bins > 0}, {"--until", !options.until.empty()}}) {
    if (given && !is_calibrated(criterion))
      throw runtime::usage_error(flag, ": `", criterion.name, "` has no scores of single calibration samples");
  }
  refuse_idle(criterion, settings);
}

// A calibration set, as read.
struct Calibration {
  unet::Inputs inputs;
  at::Tensor target;
  std::string sha256;
};

// What the network should have predicted: the file's `target`, or its noise.
at::Tensor find_target(const runtime::TensorMap& tensors, const unet::Config& config, const ScoreOptions& options) {
  const char* name = tensors.contains("target") ? "target" : "noise";
  if (!tensors.contains(name)) {
    throw runtime::input_error(options.calibration, ": tensor `noise` is missing: ", options.criterion,
                               " compares with what the network should have predicted; `calibrate` writes it");
  }
  const at::Tensor target = tensors.at(name);
  std::vector<std::int64_t> expected = tensors.at("sample").sizes().vec();
  expected[1] = config.out_channels;
  if (target.sizes() != at::IntArrayRef(expected) || !target.is_floating_point()) {
    throw runtime::input_error(options.calibration, ": `", name, "` is ", runtime::sizes_text(target),
                               ", expected floats ", runtime::shape_text(expected));
  }
  if (!at::isfinite(target).all().item<bool>())
    throw runtime::non_finite_error(options.calibration, ": `", name, "` holds NaN or Inf");
  return target;
}

Calibration read_for(const ScoreOptions& options, const pruning::Criterion& criterion, const unet::Config& config) {
  CalibrationFile file = read_calibration(options.calibration, config, options.model, options.samples);
  Calibration calibration{std::move(file.inputs), {}, runtime::tensors_sha256(file.tensors)};
  if (has_targets(criterion)) calibration.target = find_target(file.tensors, config, options);
  return calibration;
}

// What the options, the model's config and the calibration set say, before weights are read.
struct Outlook {
  const pruning::Criterion* criterion = nullptr;
  pruning::EngineOptions engine;
  Calibration calibration;
};

Outlook look(const ScoreOptions& options, const CommonOptions& common, const Json& settings,
             const Invocation& invocation) {
  Outlook seen;
  seen.criterion = &pruning::find_criterion(options.criterion);
  check_options(options, *seen.criterion, settings, invocation);
  seen.engine.memory_bytes = options.memory.bytes(common.torch_device());
  const unet::Spec spec = unet::load_architecture(options.model);
  if (!spec.removed.empty())
    throw runtime::usage_error(options.model, " is pruned already; scores are of a full base model");
  check_result(options.output, common, settings);
  if (is_calibrated(*seen.criterion)) seen.calibration = read_for(options, *seen.criterion, spec.base);
  if (options.bins > 0) pruning::check_timesteps(seen.calibration.inputs.timestep, kSchedule);
  return seen;
}

void print_scores(const pruning::Scores& scores) {
  std::printf("%-58s %-12s %13s %12s %10s\n", "unit", "kind", "params", "score", "stderr");
  for (std::size_t i = 0; i < scores.units.size(); ++i) {
    const pruning::Estimate& e = scores.unit_scores[i];
    std::printf("%-58s %-12s %13s %12s %10s\n", scores.units[i].layer.c_str(), unet::unit_name(scores.units[i].kind),
                runtime::with_commas(scores.units[i].params).c_str(), e.value ? runtime::cat(*e.value).c_str() : "null",
                runtime::cat(e.standard_error).c_str());
  }
  for (const pruning::ScoreBin& bin : scores.bins)
    std::printf("timesteps %d to %d: %lld samples\n", bin.first, bin.last - 1, static_cast<long long>(bin.samples));
}

// Each process of several has its share of the machine's cores, where the launcher has not seen to that, and its GPU;
// the first one speaks for all.
CommonOptions share_machine(CommonOptions common) {
  const runtime::Processes& all = runtime::processes();
  if (all.size == 1) return common;
  if (!all.first()) runtime::set_verbosity(runtime::Verbosity::quiet);
  const auto online = static_cast<int>(::sysconf(_SC_NPROCESSORS_ONLN));
  if (common.threads == 0 && at::get_num_threads() == online) at::set_num_threads(std::max(1, online / all.local_size));
  if (const at::Device device = common.torch_device(); device.is_cuda()) {
    const auto count = static_cast<int>(torch::cuda::device_count());
    common.device = runtime::cat("cuda:", all.local_rank % count);
  }
  return common;
}

unet::Shell shell_of(const ScoreOptions& options) {
  return options.shell == "keep" ? unet::Shell::keep : unet::Shell::drop;
}

pruning::StabilityOptions stability_of(const ScoreOptions& options) {
  pruning::StabilityOptions stability;
  stability.keep = options.keep;
  stability.solver = options.solver.empty() ? "knapsack" : options.solver;
  stability.seed = static_cast<std::uint64_t>(options.seed);
  return stability;
}

// One criterion's measurement of a model, with all that it refers to.
class Scoring {
 public:
  // Reads the weights. `seen` and `options` must outlive it.
  Scoring(const ScoreOptions& options, const CommonOptions& common, const Outlook& seen)
      : options_(options),
        seen_(seen),
        stability_(stability_of(options)),
        model_(load_for_device(options.model, "", common,
                               runtime::processes().first() ? WeightsHash::compute : WeightsHash::skip,
                               options.weights)),
        weights_sha256_(runtime::broadcast(model_.weights_sha256)),
        removables_(pruning::find_removables(model_.base, shell_of(options))),
        executor_(reads_weights(criterion()) ? unet::Executor(model_.base, model_.weights)
                                             : unet::Executor::for_inference(model_.base, std::move(model_.weights))),
        subject_{model_.base,
                 removables_,
                 executor_,
                 model_.weights,
                 {},
                 {},
                 options.batch,
                 seen.engine,
                 static_cast<std::uint64_t>(options.seed),
                 {}} {
    if (is_calibrated(criterion())) {
      subject_.inputs = unet::to(seen.calibration.inputs, common.torch_dtype(), common.torch_device());
      subject_.target = seen.calibration.target;
    }
    if (is_sampled(criterion())) {
      sampler_.emplace(options.model, options.sampling, criterion().needs, static_cast<std::uint64_t>(options.seed),
                       executor_, options.weights, common);
      subject_.sampling = sampler_->sampling();
    }
    measurement_ = criterion().make(subject_);
    if (runtime::processes().first() && !options.until.empty())
      pruning::check_stable(*measurement_, model_.base, removables_, stability_);
  }
  Scoring(const Scoring&) = delete;
  Scoring& operator=(const Scoring&) = delete;

  const pruning::Measurement& measurement() const { return *measurement_; }
  std::size_t units() const { return removables_.units.size(); }
  // Calibration samples or prompts that there are.
  std::int64_t available() const {
    if (is_calibrated(criterion())) return seen_.calibration.inputs.batch();
    return sampler_ ? subject_.sampling.prompts : 0;
  }

  // What the work so far depends on; work of another key is never continued. Another build may round otherwise.
  Json work_key(const CommonOptions& common, const Json& made_by) const {
    return {{"program", {made_by["version"], made_by["commit"], made_by["torch"]}},
            {"model", weights_sha256_},
            {"sampling", sampler_ ? sampler_->key() : Json()},
            {"calibration", seen_.calibration.sha256},
            {"criterion", options_.criterion},
            {"shell", options_.shell},
            {"dtype", common.dtype},
            {"device", common.torch_device().is_cuda() ? "cuda" : "cpu"},
            {"batch", options_.batch},
            {"memory", options_.memory.bytes(common.torch_device())},
            {"seed", options_.seed},
            {"plan", runtime::sha256(measurement_->plan().dump())}};
  }

  pruning::StableRun measure(pruning::WorkFolder& folder) {
    const std::int64_t samples = measurement_->samples();
    if (options_.until.empty()) return {pruning::measure_samples(*measurement_, folder, samples), samples, false, {}};
    const auto summary = [&](const pruning::Measured& measured) { return summarise(measured); };
    return pruning::measure_until_stable(*measurement_, folder, samples, model_.base, summary, stability_);
  }

  // Without provenance.
  pruning::Scores scores_of(const pruning::StableRun& run) const {
    pruning::Scores scores = summarise(run.measured);
    scores.samples = criterion().needs == pruning::Needs::weights ? 0 : run.samples;
    scores.weights_sha256 = weights_sha256_;
    scores.calibration_sha256 = seen_.calibration.sha256;
    if (options_.bins > 0) {
      const at::Tensor timesteps = seen_.calibration.inputs.timestep.slice(0, 0, run.samples);
      scores.bins =
          pruning::make_bins(removables_, run.measured, timesteps, options_.bins, kSchedule, criterion().why_null);
    }
    if (!options_.until.empty()) scores.stability = pruning::stability_json(run, stability_);
    return scores;
  }

 private:
  const pruning::Criterion& criterion() const { return *seen_.criterion; }

  pruning::Scores summarise(const pruning::Measured& measured) const {
    pruning::Scores scores = pruning::summarise(model_.base, removables_, measured, criterion().why_null);
    scores.criterion = criterion().name;
    scores.shell = shell_of(options_);
    return scores;
  }

  const ScoreOptions& options_;
  const Outlook& seen_;
  pruning::StabilityOptions stability_;
  LoadedModel model_;
  std::string weights_sha256_;
  pruning::Removables removables_;
  unet::Executor executor_;
  std::optional<VariantSampler> sampler_;
  pruning::Subject subject_;
  std::unique_ptr<pruning::Measurement> measurement_;
};

// Passes through the base that were paid for, and what the plain loop over all single removals would have cost: on the
// samples used, and on all that there are. Null where the criterion does not count so.
Json work_json(const pruning::Measurement& measurement, std::int64_t used) {
  const double own = measurement.forwards_per_sample(), naive = measurement.naive_forwards_per_sample();
  if (own == 0) return {};
  Json work = {{"samples", used}, {"available", measurement.samples()}, {"forwards", own * static_cast<double>(used)}};
  if (naive == 0) return work;
  work["naive_forwards"] = naive * static_cast<double>(used);
  work["naive_forwards_available"] = naive * static_cast<double>(measurement.samples());
  return work;
}

void say_work(const Json& work) {
  if (!work.contains("naive_forwards")) return;
  const auto whole = [&](const char* name) { return std::llround(work[name].get<double>()); };
  std::string text = runtime::cat("the work of ", whole("forwards"), " forwards instead of ", whole("naive_forwards"),
                                  " by the plain loop");
  if (work["samples"] != work["available"])
    text += runtime::cat(", or of ", whole("naive_forwards_available"), " on all ", work["available"], " samples");
  runtime::say(text);
}

// What can be refused is refused by the first process, while the others wait: one message, not one of each.
Outlook look_together(const ScoreOptions& options, const CommonOptions& common, const Json& settings,
                      const Invocation& invocation) {
  const bool first = runtime::processes().first();
  Outlook seen;
  if (first) seen = look(options, common, settings, invocation);
  runtime::barrier();
  if (!first) seen = look(options, common, settings, invocation);
  return seen;
}

// Whoever wrote there since the check at the start did not ask for it to be replaced.
void check_still_free(const std::string& output, const CommonOptions& common, const pruning::WorkFolder& folder) {
  if (common.overwrite || !std::filesystem::exists(std::filesystem::symlink_status(output))) return;
  throw runtime::usage_error(output, " was written by someone else while this run went on, and is not replaced; the ",
                             "finished work is kept in ", folder.path().string(),
                             ": move the file away and run the same command again, or add --overwrite");
}

void write_scores(const std::string& output, const pruning::Scores& scores, const Json& work, bool as_json) {
  const Json json = pruning::scores_json(scores);
  runtime::write_json(output, json);
  if (as_json) std::cout << runtime::dump_json(json);
  else print_scores(scores);
  say_work(work);
}

}  // namespace

void run_score(const Invocation& invocation) {
  const auto [options, given, settings] = parse_command<ScoreOptions>(invocation, {"model"});
  const CommonOptions common = share_machine(given);
  const Outlook seen = look_together(options, common, settings, invocation);
  Scoring scoring(options, common, seen);
  if (common.dry_run) {
    return runtime::say(runtime::cat("would score ", scoring.units(), " units on ", scoring.available(), " samples by ",
                                     seen.criterion->name));
  }
  const Json made_by = provenance(invocation);
  pruning::WorkFolder folder(options.output + ".partial", scoring.work_key(common, made_by),
                             common.overwrite ? pruning::OtherWork::discard : pruning::OtherWork::refuse);
  const pruning::StableRun run = scoring.measure(folder);
  if (runtime::processes().first()) {
    pruning::Scores scores = scoring.scores_of(run);
    pruning::warn_of_missing(scores);
    scores.made_by = made_by;
    scores.made_by["settings"] = settings;
    check_still_free(options.output, common, folder);
    const Json work = work_json(scoring.measurement(), run.samples);
    if (!work.is_null()) scores.made_by["work"] = work;
    write_scores(options.output, scores, work, common.json);
  }
  folder.remove();
}

}  // namespace laptopdiff::experiments
