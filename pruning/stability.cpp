#include "pruning/stability.h"

#include <torch/types.h>

#include "pruning/budgets.h"
#include "pruning/solvers/greedy.h"
#include "pruning/solvers/quadratic.h"
#include "runtime/error.h"
#include "runtime/processes.h"
#include "runtime/progress.h"
#include "runtime/random.h"
#include "runtime/stop.h"

namespace laptopdiff::pruning {
namespace {

using runtime::cat;

struct FastSolver {
  const char* name;
  Solution (*solve)(const Problem&);
};
constexpr FastSolver kFastSolvers[] = {
    {"knapsack", [](const Problem& problem) { return solve_knapsack(problem); }},
    {"greedy", [](const Problem& problem) { return solve_greedy(problem); }},
    {"gram",
     [](const Problem& problem) {
       QuadraticOptions options;
       options.max_nodes = 0;
       return solve_quadratic(problem, options);
     }},
};

const FastSolver& fast_solver(const std::string& name) {
  for (const FastSolver& solver : kFastSolvers) {
    if (name == solver.name) return solver;
  }
  throw runtime::usage_error("--until stable: unknown solver `", name, "`",
                             runtime::did_you_mean(name, stable_solvers()));
}

// A ratio each. They differ between resamples in their gains alone, which is not what takes time to make.
std::vector<Problem> problems_of(const Scores& scores, const unet::Program& base, const StabilityOptions& options) {
  std::vector<Problem> problems;
  for (const double keep : options.keep)
    problems.push_back(make_problem(scores, base, {{Resource::params, keep * static_cast<double>(base.params())}}));
  return problems;
}

// Rows as in Removables: the items, then the groups. A row without a value is fixed to be kept.
void set_gains(const Means& means, Problem& problem) {
  const auto gain = [&](std::size_t row) { return means.rows[row].value.value_or(0); };
  for (std::size_t i = 0; i < problem.items.size(); ++i) problem.items[i].gain = gain(i);
  for (std::size_t i = 0; i < problem.groups.size(); ++i) {
    if (problem.groups[i].all) problem.groups[i].all->gain = gain(problem.items.size() + i);
  }
  if (!problem.form || means.gram.empty()) return;
  std::size_t k = 0;
  for (const auto& row : means.gram) {
    for (const auto& entry : row) problem.form->values[k++] = entry.value_or(0);
  }
}

// How often each of n samples is drawn in resample r.
at::Tensor resample(std::int64_t n, std::uint64_t seed, int r) {
  at::Tensor counts = at::zeros({n}, at::kDouble);
  auto count = counts.accessor<double, 1>();
  runtime::Stream stream(seed, runtime::Purpose::bootstrap, static_cast<std::uint64_t>(r));
  for (std::int64_t i = 0; i < n; ++i)
    count[static_cast<std::int64_t>(stream.below(static_cast<std::uint64_t>(n)))] += 1;
  return counts;
}

std::string describe(const StabilityCheck& check, const StabilityOptions& options) {
  std::string text = cat(check.samples, " samples: the mask is unchanged in");
  for (std::size_t i = 0; i < options.keep.size(); ++i)
    text += cat(i > 0 ? ", " : " ", 100 * check.unchanged[i], " % of resamples at ", options.keep[i], " kept");
  return text;
}

}  // namespace

std::vector<std::string> stable_solvers() {
  std::vector<std::string> names;
  for (const FastSolver& solver : kFastSolvers) names.emplace_back(solver.name);
  return names;
}

void check_stable(const Measurement& measurement, const unet::Program& base, const Removables& removables,
                  const StabilityOptions& options) {
  if (fast_solver(options.solver).name == std::string("gram") && !measurement.has_gram())
    throw runtime::usage_error("--solver gram: this criterion has no Gram matrix; score with output_loss or gram");
  // What can be met follows from costs alone, so any values do.
  const Measured any{at::zeros({removables.rows(), 1}, at::kDouble), {}};
  for (const Problem& problem : problems_of(summarise(base, removables, any, ""), base, options))
    check_reachable(problem);
}

StabilityCheck check_stability(const Scores& scores, const unet::Program& base, const Measured& measured,
                               const StabilityOptions& options) {
  StabilityCheck check;
  check.samples = measured.values.size(1);
  const FastSolver& solver = fast_solver(options.solver);
  std::vector<Problem> problems = problems_of(scores, base, options);
  std::vector<Mask> expected;
  for (const Problem& problem : problems) expected.push_back(solver.solve(problem).removed);
  std::vector<int> same(expected.size(), 0);
  // Only the quadratic solver looks at the Gram matrix, which is most of a resample's arithmetic.
  const Measured looked_at{measured.values, options.solver == "gram" ? measured.gram : at::Tensor()};
  for (int r = 0; r < options.resamples; ++r) {
    runtime::throw_if_stopped("finished work is kept; run the same command again to go on");
    const Means means = means_of(looked_at, resample(check.samples, options.seed, r), "not finite");
    for (std::size_t i = 0; i < problems.size(); ++i) {
      set_gains(means, problems[i]);
      same[i] += solver.solve(problems[i]).removed == expected[i] ? 1 : 0;
    }
  }
  for (const int count : same) check.unchanged.push_back(static_cast<double>(count) / options.resamples);
  return check;
}

std::vector<std::int64_t> check_points(std::int64_t first, std::int64_t block, std::int64_t most) {
  std::vector<std::int64_t> points;
  for (std::int64_t samples = (first + block - 1) / block * block; samples < most; samples *= 2)
    points.push_back(samples);
  points.push_back(most);
  return points;
}

StableRun measure_until_stable(Measurement& measurement, WorkFolder& folder, std::int64_t most,
                               const unet::Program& base, const std::function<Scores(const Measured&)>& summary,
                               const StabilityOptions& options) {
  StableRun run;
  for (const std::int64_t samples : check_points(options.first_samples, measurement.block_samples(), most)) {
    run.samples = samples;
    run.measured = measure_samples(measurement, folder, samples);
    bool stable = false;
    if (runtime::processes().first()) {
      const Scores scores = summary(run.measured);
      run.checks.push_back(check_stability(scores, base, run.measured, options));
      runtime::say(describe(run.checks.back(), options));
      stable = std::all_of(run.checks.back().unchanged.begin(), run.checks.back().unchanged.end(),
                           [&](double share) { return share >= options.share; });
    }
    run.stable = runtime::broadcast_flag(stable);
    if (run.stable) break;
  }
  return run;
}

runtime::Json stability_json(const StableRun& run, const StabilityOptions& options) {
  runtime::Json checks = runtime::Json::array();
  for (const StabilityCheck& check : run.checks) {
    runtime::Json unchanged = runtime::Json::object();
    for (std::size_t i = 0; i < options.keep.size(); ++i) unchanged[cat(options.keep[i])] = check.unchanged[i];
    checks.push_back({{"samples", check.samples}, {"unchanged", unchanged}});
  }
  return {{"solver", options.solver}, {"share", options.share}, {"resamples", options.resamples},
          {"seed", options.seed},     {"stable", run.stable},   {"samples", run.samples},
          {"checks", checks}};
}

}  // namespace laptopdiff::pruning
