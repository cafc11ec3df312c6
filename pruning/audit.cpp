#include "pruning/audit.h"

#include <torch/types.h>

#include <algorithm>
#include <cmath>
#include <numeric>

#include "pruning/output_loss.h"
#include "pruning/presets.h"
#include "runtime/error.h"
#include "runtime/median.h"
#include "runtime/progress.h"
#include "runtime/stop.h"

namespace laptopdiff::pruning {
namespace {

using runtime::cat;
using runtime::Json;

constexpr std::size_t kPairsShown = 12;

std::vector<double> ranks(const std::vector<double>& values) {
  std::vector<std::size_t> order(values.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) { return values[a] < values[b]; });
  std::vector<double> rank(values.size());
  for (std::size_t begin = 0; begin < order.size();) {
    std::size_t end = begin;
    while (end < order.size() && values[order[end]] == values[order[begin]]) ++end;
    const double mean = (static_cast<double>(begin) + static_cast<double>(end) - 1) / 2;
    for (std::size_t i = begin; i < end; ++i) rank[order[i]] = mean;
    begin = end;
  }
  return rank;
}

double correlation(const std::vector<double>& a, const std::vector<double>& b) {
  const auto n = static_cast<double>(a.size());
  const double mean_a = std::accumulate(a.begin(), a.end(), 0.0) / n,
               mean_b = std::accumulate(b.begin(), b.end(), 0.0) / n;
  double ab = 0, aa = 0, bb = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    ab += (a[i] - mean_a) * (b[i] - mean_b);
    aa += (a[i] - mean_a) * (a[i] - mean_a);
    bb += (b[i] - mean_b) * (b[i] - mean_b);
  }
  return ab / std::sqrt(aa * bb);
}

AuditRow row_of_mask(const Scores& scores, const Problem& problem, const Mask& mask, std::string name,
                     std::string kind) {
  AuditRow row;
  row.name = std::move(name);
  row.kind = std::move(kind);
  row.removed = removals_of(scores, mask);
  row.additive = linear_loss(problem, mask);
  if (problem.form) row.gram = quadratic_loss(problem, mask);
  return row;
}

std::vector<AuditRow> make_rows(const unet::Program& base, const Scores& scores, const AuditOptions& options) {
  std::vector<AuditRow> rows;
  for (const double keep : options.keep) {
    const Problem problem = make_problem(scores, base, {{Resource::params, keep * static_cast<double>(base.params())}});
    for (const SolverRow& solver : solvers()) {
      if (std::string(solver.name) == "gram" && !problem.form) continue;
      rows.push_back(
          row_of_mask(scores, problem, solver.solve(problem).removed, cat(solver.name, " ", keep), "solver"));
    }
    for (int i = 0; i < options.random_masks; ++i) {
      const std::uint64_t seed =
          options.seed + static_cast<std::uint64_t>(i) * 1000003u + static_cast<std::uint64_t>(keep * 1e6);
      rows.push_back(
          row_of_mask(scores, problem, random_mask(problem, seed).removed, cat("random ", keep, " #", i), "random"));
    }
  }
  for (const std::string& preset : options.presets) {
    AuditRow row;
    row.name = preset;
    row.kind = "preset";
    row.removed = preset_removals(preset, base);
    rows.push_back(std::move(row));
  }
  return rows;
}

void measure(const unet::Program& base, const unet::Executor& executor, const Scores& scores,
             const unet::Inputs& inputs, const AuditOptions& options, std::vector<AuditRow>& rows) {
  std::vector<unet::Program> variants{base};
  unet::Spec spec;
  spec.base = base.config;
  spec.shell = scores.shell;
  for (AuditRow& row : rows) {
    spec.removed = row.removed;
    variants.push_back(unet::prune(base, spec));
    row.keep = static_cast<double>(variants.back().params()) / static_cast<double>(base.params());
  }
  const Engine engine(base, executor, options.engine);
  const std::int64_t each =
      bytes_per_variant(base, inputs.sample.element_size()) * static_cast<std::int64_t>(variants.size());
  const std::int64_t batch =
      options.batch > 0 ? options.batch : std::clamp<std::int64_t>(options.engine.memory_bytes / each, 1, 32);
  const Plan plan = engine.plan(variants, batch, inputs.sample.element_size());
  std::vector<at::Tensor> losses;
  runtime::Progress progress("audit", inputs.batch(), "samples");
  for (std::int64_t begin = 0; begin < inputs.batch(); begin += batch) {
    runtime::throw_if_interrupted("an audit starts over; nothing was written");
    std::vector<at::Tensor> outputs =
        engine.evaluate(plan, unet::slice(inputs, begin, std::min(inputs.batch(), begin + batch)));
    const at::Tensor reference = outputs.front();
    outputs.erase(outputs.begin());
    losses.push_back(squared_differences(reference, outputs));
    progress.update(std::min(inputs.batch(), begin + batch));
  }
  progress.finish();
  const at::Tensor all = at::cat(losses, 1);
  for (std::size_t i = 0; i < rows.size(); ++i) {
    const at::Tensor own = all[static_cast<std::int64_t>(i)];
    rows[i].true_loss = own.mean().item<double>();
    if (!std::isfinite(rows[i].true_loss))
      throw runtime::non_finite_error("audit: the output of `", rows[i].name, "` is not finite");
    if (own.numel() > 1)
      rows[i].standard_error = own.std().item<double>() / std::sqrt(static_cast<double>(own.numel()));
  }
}

enum class Which { all, random };

Agreement agree(const std::vector<AuditRow>& rows, std::optional<double> AuditRow::*prediction, Which which) {
  std::vector<double> predicted, truth;
  for (const AuditRow& row : rows) {
    if (!(row.*prediction) || (which == Which::random && row.kind != "random")) continue;
    predicted.push_back(*(row.*prediction));
    truth.push_back(row.true_loss);
  }
  return agreement(predicted, truth);
}

std::vector<Audit::Pair> strongest(const Scores& scores) {
  std::vector<Audit::Pair> pairs;
  if (scores.gram.empty()) return pairs;
  for (std::size_t i = 0; i < scores.units.size(); ++i) {
    for (std::size_t j = i + 1; j < scores.units.size(); ++j) {
      if (!scores.gram[i][j] || !scores.gram[i][i] || !scores.gram[j][j]) continue;
      const double inner = *scores.gram[i][j], norm = std::sqrt(*scores.gram[i][i] * *scores.gram[j][j]);
      if (norm > 0) pairs.push_back({scores.units[i].layer, scores.units[j].layer, inner, inner / norm});
    }
  }
  const std::size_t shown = std::min(kPairsShown, pairs.size());
  std::partial_sort(pairs.begin(), pairs.begin() + static_cast<std::ptrdiff_t>(shown), pairs.end(),
                    [](const Audit::Pair& a, const Audit::Pair& b) { return std::abs(a.inner) > std::abs(b.inner); });
  pairs.resize(shown);
  return pairs;
}

Json number_or_null(double value) { return std::isfinite(value) ? Json(value) : Json(); }

Json agreement_json(const Agreement& a) {
  return {{"rows", a.rows},
          {"spearman", number_or_null(a.spearman)},
          {"r2_log", number_or_null(a.r2_log)},
          {"ratio",
           {{"median", number_or_null(a.ratio_median)},
            {"min", number_or_null(a.ratio_min)},
            {"max", number_or_null(a.ratio_max)}}}};
}

}  // namespace

double spearman(const std::vector<double>& a, const std::vector<double>& b) {
  if (a.size() < 2) return std::nan("");
  return correlation(ranks(a), ranks(b));
}

Agreement agreement(const std::vector<double>& predicted, const std::vector<double>& truth) {
  Agreement result;
  result.rows = static_cast<int>(predicted.size());
  result.spearman = spearman(predicted, truth);
  std::vector<double> ratios;
  double residual = 0, total = 0, mean = 0;
  std::vector<std::pair<double, double>> logs;
  for (std::size_t i = 0; i < predicted.size(); ++i) {
    if (predicted[i] <= 0 || truth[i] <= 0) continue;
    ratios.push_back(truth[i] / predicted[i]);
    logs.emplace_back(std::log(predicted[i]), std::log(truth[i]));
    mean += logs.back().second;
  }
  if (ratios.empty()) {
    result.r2_log = result.ratio_median = result.ratio_min = result.ratio_max = std::nan("");
    return result;
  }
  mean /= static_cast<double>(logs.size());
  for (const auto& [x, y] : logs) {
    residual += (y - x) * (y - x);
    total += (y - mean) * (y - mean);
  }
  result.r2_log = 1 - residual / total;
  std::sort(ratios.begin(), ratios.end());
  result.ratio_median = runtime::median(ratios);
  result.ratio_min = ratios.front();
  result.ratio_max = ratios.back();
  return result;
}

Audit run_audit(const unet::Program& base, const unet::Executor& executor, const Scores& scores,
                const unet::Inputs& inputs, const AuditOptions& options) {
  const c10::InferenceMode inference;
  Audit audit;
  audit.rows = make_rows(base, scores, options);
  measure(base, executor, scores, inputs, options, audit.rows);
  audit.additive_all = agree(audit.rows, &AuditRow::additive, Which::all);
  audit.gram_all = agree(audit.rows, &AuditRow::gram, Which::all);
  audit.additive_random = agree(audit.rows, &AuditRow::additive, Which::random);
  audit.gram_random = agree(audit.rows, &AuditRow::gram, Which::random);
  audit.strongest_pairs = strongest(scores);
  return audit;
}

Json audit_json(const Audit& audit) {
  Json rows = Json::array(), pairs = Json::array();
  for (const AuditRow& row : audit.rows) {
    Json removed = Json::array();
    for (const unet::Removal& r : row.removed) removed.push_back(r.layer);
    rows.push_back({{"name", row.name},
                    {"kind", row.kind},
                    {"keep", row.keep},
                    {"removed", removed},
                    {"additive", row.additive ? Json(*row.additive) : Json()},
                    {"gram", row.gram ? Json(*row.gram) : Json()},
                    {"true", row.true_loss},
                    {"stderr", row.standard_error}});
  }
  for (const Audit::Pair& p : audit.strongest_pairs)
    pairs.push_back({{"a", p.a}, {"b", p.b}, {"inner", p.inner}, {"cosine", p.cosine}});
  return {{"format", "laptopdiff.audit/1"},
          {"rows", rows},
          {"agreement",
           {{"additive", agreement_json(audit.additive_all)},
            {"gram", agreement_json(audit.gram_all)},
            {"additive_random", agreement_json(audit.additive_random)},
            {"gram_random", agreement_json(audit.gram_random)}}},
          {"strongest_pairs", pairs}};
}

}  // namespace laptopdiff::pruning
