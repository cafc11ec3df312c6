#include "experiments/solving.h"

#include <cmath>

#include "diffusion/noise_schedule.h"
#include "diffusion/pipeline.h"
#include "pruning/curve.h"
#include "pruning/intervals.h"
#include "runtime/error.h"
#include "runtime/progress.h"

namespace laptopdiff::experiments {
namespace {

// log(ab / (1 - ab)) at the timesteps of the bins' edges. With zero terminal SNR the last is cut off.
pruning::LogSnr log_snr_of_edges(const SolveOptions& options, const pruning::Scores& scores) {
  constexpr double kLeast = -20;
  const std::string folder = options.pipeline.empty() ? options.model : options.pipeline;
  if (!std::filesystem::exists(std::filesystem::path(folder) / "model_index.json")) {
    throw runtime::usage_error("--by snr needs the noise schedule, and ", folder,
                               " is no pipeline folder: give --pipeline DIR, or use --by width");
  }
  const auto pipeline = diffusion::Pipeline::load(folder, diffusion::Parts::config_only);
  const diffusion::NoiseSchedule schedule = diffusion::noise_schedule(pipeline.scheduler_config);
  const at::Tensor kept = schedule.alphas_cumprod.to(at::kDouble).contiguous();
  const double* ab = kept.data_ptr<double>();
  pruning::LogSnr values;
  const auto add = [&](std::int64_t edge) {
    const double a = ab[std::min(edge, schedule.train_timesteps - 1)];
    values.push_back(std::max(kLeast, std::log(a) - std::log1p(-a)));
  };
  for (const pruning::ScoreBin& bin : scores.bins) add(bin.first);
  if (!scores.bins.empty()) add(scores.bins.back().last);
  return values;
}

Json verified_json(const std::vector<pruning::VerifiedMask>& masks) {
  Json list = Json::array();
  for (const pruning::VerifiedMask& mask : masks) {
    list.push_back(
        {{"source", mask.source},
         {"true", std::isfinite(mask.loss) ? Json(mask.loss) : Json()},
         {"removed", std::count_if(mask.removed.begin(), mask.removed.end(), [](auto bit) { return bit; })}});
  }
  return list;
}

}  // namespace

bool measures_losses(const SolveOptions& options) {
  return pruning::solver_row(options.solver).measures == pruning::Measures::yes || options.verify > 0;
}

std::optional<pruning::Latency> read_latency_option(const std::string& path) {
  return path.empty() ? std::nullopt : std::optional(pruning::read_latency(path));
}

Solving::Solving(const SolveOptions& options, const CommonOptions& common, const unet::Spec& base_spec,
                 const unet::Program& base)
    : options_(options),
      base_spec_(base_spec),
      costs_(base, read_latency_option(options.latency)),
      scores_(pruning::read_scores(options.scores)) {
  require_same_base(scores_, base_spec.base, options.scores);
  budgets_ = pruning::parse_budgets(options.budget, costs_);
  const bool measures = measures_losses(options);
  if (!measures && !options.calibration.empty())
    throw runtime::usage_error("--solver ", options.solver,
                               " measures nothing; leave --calibration out, or add --verify");
  if (measures && options.calibration.empty())
    throw runtime::usage_error("measuring true losses needs --calibration, safetensors from `laptopdiff calibrate`");
  if (measures) {
    source_ = std::make_unique<TrueLossSource>(
        TrueLossOptions{options.model, options.calibration, options.samples, options.batch,
                        options.memory.bytes(common.torch_device()), options.weights},
        scores_, options.scores, common);
  }
}

pruning::SearchTools Solving::tools(const pruning::Scores& scores) {
  pruning::SearchTools tools;
  if (source_ != nullptr) tools.measure = source_->losses(scores);
  tools.exact_greedy.per_round = static_cast<int>(options_.per_round);
  if (options_.verify > 0) tools.verify.most = static_cast<double>(options_.verify);
  if (source_ != nullptr) tools.verify.few_share = source_->meter().few_share();
  return tools;
}

Solving::Choice Solving::choose(const pruning::Scores& scores) {
  const pruning::Problem problem =
      pruning::make_problem(scores, costs_, budgets_, options_.must_keep, options_.must_remove);
  pruning::Verification verification;
  pruning::SearchTools with = tools(scores);
  with.verification = &verification;
  const pruning::SolverRow& row = pruning::solver_row(options_.solver);
  Choice choice{pruning::solve_by_name(row.name, problem, with), {}};
  pruning::Solution& solution = choice.solution;
  if (options_.verify > 0 && row.measures == pruning::Measures::no) {
    verification = pruning::verify(problem, solution.removed, with.verify, with.measure);
    solution = verification.solution;
  }
  Json kept = Json::object();
  for (std::size_t d = 0; d < problem.budgets.size(); ++d) {
    const pruning::Budget& budget = problem.budgets[d];
    kept[budget.name] = {
        {"base", budget.total}, {"kept", budget.total - solution.freed[d]}, {"asked", budget.total - budget.must_free}};
  }
  choice.made_by = {{"criterion", scores.criterion},
                    {"solver", options_.solver},
                    {"scores", options_.scores},
                    {"budget", options_.budget},
                    {"kept", kept},
                    {"predicted_loss", row.predict(problem, solution.removed)},
                    {"bound", std::isfinite(solution.bound) ? Json(solution.bound) : Json()},  // greedy knows none
                    {"proven_optimal", solution.proven_optimal}};
  if (source_ != nullptr) {
    choice.made_by["true_loss"] = solution.loss;
    choice.made_by["measured"] = source_->spent();
    if (!verification.masks.empty()) {
      choice.made_by["verified"] = verified_json(verification.masks);
      choice.made_by["explored"] = verification.explored;
    }
  }
  if (!options_.latency.empty()) {
    choice.made_by["latency"] = options_.latency;
    choice.made_by["latency_device"] = pruning::device_text(*costs_.latency());
  }
  return choice;
}

unet::Spec Solving::spec_of(const Choice& choice) const {
  unet::Spec spec = base_spec_;
  spec.shell = scores_.shell;
  spec.weights_sha256 = scores_.weights_sha256;
  spec.removed = pruning::removals_of(scores_, choice.solution.removed);
  spec.made_by = choice.made_by;
  return spec;
}

unet::Spec Solving::one_mask() { return spec_of(choose(scores_)); }

Json Solving::masks_of_intervals() {
  const pruning::IntervalRule rule = pruning::parse_rule(options_.by);
  const pruning::LogSnr log_snr =
      rule == pruning::IntervalRule::snr ? log_snr_of_edges(options_, scores_) : pruning::LogSnr{};
  const std::vector<int> begin = pruning::cut_bins(scores_, static_cast<int>(options_.intervals), rule, log_snr);
  std::vector<unet::Spec> students;
  std::vector<pruning::Mask> masks;
  for (std::size_t i = 0; i + 1 < begin.size(); ++i) {
    const pruning::Scores scores = pruning::join_bins(scores_, begin[i], begin[i + 1]);
    const int first = scores_.bins[static_cast<std::size_t>(begin[i])].first;
    const int last = scores_.bins[static_cast<std::size_t>(begin[i + 1]) - 1].last;
    if (source_ != nullptr) source_->restrict_to(first, last);
    Choice choice = choose(scores);
    choice.made_by["samples"] = scores.samples;
    students.push_back(spec_of(choice));
    students.back().first_timestep = first;
    students.back().last_timestep = last;
    masks.push_back(choice.solution.removed);
  }
  const pruning::Overlap common = pruning::overlap(masks);
  Json kept_by = Json::object();
  for (std::size_t i = 0; i < scores_.units.size(); ++i) kept_by[scores_.units[i].layer] = common.kept_by[i];
  Json set = unet::spec_set_json(students);
  set["made_by"] = {{"by", options_.by}, {"overlap", {{"jaccard", common.jaccard}, {"kept_by", kept_by}}}};
  return set;
}

Json Solving::curve() {
  const pruning::Problem problem =
      pruning::make_problem(scores_, costs_, budgets_, options_.must_keep, options_.must_remove);
  const pruning::SolverRow& row = pruning::solver_row(options_.solver);
  const pruning::SearchTools with = tools(scores_);
  std::vector<double> keep = options_.keep;
  if (keep.empty() && std::string(row.name) != "knapsack") {
    for (int percent = 95; percent >= 10; percent -= 5) keep.push_back(percent / 100.0);
  }
  const pruning::Curve curve = keep.empty() ? pruning::knapsack_curve_points(problem)
                                            : pruning::curve_at(problem, keep, [&](const pruning::Problem& p) {
                                                return pruning::solve_by_name(row.name, p, with);
                                              });
  for (const double share : curve.unreachable)
    runtime::warn(runtime::cat("the curve has no point at ", share, ": no choice keeps as little; it is left out"));
  return pruning::curve_json(curve, problem, row.name, row.objective);
}

}  // namespace laptopdiff::experiments
