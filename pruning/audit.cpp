#include "pruning/audit.h"

#include <algorithm>
#include <cmath>

#include "pruning/presets.h"
#include "runtime/error.h"
#include "runtime/progress.h"

namespace laptopdiff::pruning {
namespace {

using runtime::cat;
using runtime::Json;

constexpr std::size_t kPairsShown = 12;
constexpr std::uint64_t kFitSeeds = 0x5bd1e995;  // apart from the seeds of the audited masks

// The prediction of a row that a name of the report stands for.
struct PredictionKind {
  const char* name;
  std::optional<double> AuditRow::*value;
};
constexpr PredictionKind kPredictions[] = {{"additive", &AuditRow::additive},
                                           {"gram", &AuditRow::gram},
                                           {"additive_fitted", &AuditRow::additive_fitted},
                                           {"gram_fitted", &AuditRow::gram_fitted},
                                           {"both_fitted", &AuditRow::both_fitted}};

// A corrected prediction and what it is made of.
struct CorrectionKind {
  const char* name;
  std::optional<double> AuditRow::*value;
  std::vector<std::optional<double> AuditRow::*> terms;
};
const std::vector<CorrectionKind>& correction_kinds() {
  static const std::vector<CorrectionKind> kKinds = {
      {"additive_fitted", &AuditRow::additive_fitted, {&AuditRow::additive}},
      {"gram_fitted", &AuditRow::gram_fitted, {&AuditRow::gram}},
      {"both_fitted", &AuditRow::both_fitted, {&AuditRow::gram, &AuditRow::additive}}};
  return kKinds;
}

// The names of the criteria; a repeated one is told apart by its place.
std::vector<std::string> criterion_names(const std::vector<Scores>& scores) {
  std::vector<std::string> names;
  for (const Scores& one : scores) {
    const bool taken = std::find(names.begin(), names.end(), one.criterion) != names.end();
    names.push_back(taken ? cat(one.criterion, "#", names.size() + 1) : one.criterion);
  }
  return names;
}

std::vector<KeepBudget> params_budget(const unet::Program& base, double keep) {
  return {{Resource::params, keep * static_cast<double>(base.params())}};
}

// The mask that removals mean, where they are bypasses of whole units.
std::optional<Mask> mask_of(const unet::Program& base, const unet::Spec& spec, const Scores& scores) {
  Mask mask(scores.units.size(), 0);
  for (const unet::Removal& removal : unet::canonical_removals(base, spec)) {
    const auto unit = std::find_if(scores.units.begin(), scores.units.end(),
                                   [&](const unet::Unit& u) { return u.layer == removal.layer; });
    if (removal.how != unet::How::bypass || unit == scores.units.end() || spec.shell != scores.shell)
      return std::nullopt;
    mask[static_cast<std::size_t>(unit - scores.units.begin())] = 1;
  }
  return mask;
}

class RowMaker {
 public:
  RowMaker(const unet::Program& base, const std::vector<Scores>& scores, const AuditOptions& options)
      : base_(base),
        scores_(scores),
        options_(options),
        names_(criterion_names(scores)),
        predicting_(make_problem(scores.front(), base, params_budget(base, 1))) {}

  std::vector<AuditRow> rows() const {
    std::vector<AuditRow> rows;
    for (const double keep : options_.keep) {
      for (std::size_t s = 0; s < scores_.size(); ++s) add_solvers(s, keep, rows);
      add_random(keep, options_.random_masks, options_.seed, "random", rows);
    }
    unet::Spec spec;
    spec.base = base_.config;
    spec.shell = scores_.front().shell;
    for (const std::string& preset : options_.presets) {
      spec.removed = preset_removals(preset, base_);
      rows.push_back(row_of_spec(spec, preset, "preset"));
    }
    for (const NamedSpec& named : options_.specs) rows.push_back(row_of_spec(named.spec, named.name, "spec"));
    return rows;
  }

  std::vector<AuditRow> fit_rows() const {
    std::vector<AuditRow> rows;
    for (const double keep : options_.keep)
      add_random(keep, options_.fit_masks, options_.seed + kFitSeeds, "fit", rows);
    return rows;
  }

  const std::vector<std::string>& names() const { return names_; }

 private:
  AuditRow row_of_mask(const Mask& mask, std::string name, std::string kind) const {
    AuditRow row;
    row.name = std::move(name);
    row.kind = std::move(kind);
    row.removed = removals_of(scores_.front(), mask);
    row.mask = mask;
    row.additive = linear_loss(predicting_, mask);
    if (predicting_.form) row.gram = quadratic_loss(predicting_, mask);
    return row;
  }

  AuditRow row_of_spec(const unet::Spec& spec, const std::string& name, const std::string& kind) const {
    const std::optional<Mask> mask = mask_of(base_, spec, scores_.front());
    AuditRow row = row_of_mask(mask.value_or(Mask(scores_.front().units.size(), 0)), name, kind);
    row.removed = spec.removed;
    if (mask) return row;
    row.mask = std::nullopt;
    row.additive = row.gram = std::nullopt;
    return row;
  }

  std::vector<const SolverRow*> solvers_for(const Problem& problem) const {
    std::vector<const SolverRow*> rows;
    for (const std::string& name : options_.solvers) rows.push_back(&solver_row(name));
    if (!rows.empty()) return rows;
    for (const SolverRow& row : solvers()) {
      const bool needs_form = std::string(row.name) == "gram";
      if (row.measures == Measures::no && (problem.form || !needs_form)) rows.push_back(&row);
    }
    return rows;
  }

  void add_solvers(std::size_t s, double keep, std::vector<AuditRow>& rows) const {
    const Problem problem = make_problem(scores_[s], base_, params_budget(base_, keep));
    const std::string prefix = scores_.size() > 1 ? names_[s] + " " : "";
    for (const SolverRow* solver : solvers_for(problem)) {
      if (s > 0 && solver->measures == Measures::yes) continue;  // what is measured, the first scores have started
      const Mask mask = solve_by_name(solver->name, problem, options_.tools).removed;
      rows.push_back(row_of_mask(mask, cat(prefix, solver->name, " ", keep), "solver"));
      rows.back().criterion = names_[s];
    }
  }

  void add_random(double keep, int count, std::uint64_t first_seed, const char* kind,
                  std::vector<AuditRow>& rows) const {
    const Problem problem = make_problem(scores_.front(), base_, params_budget(base_, keep));
    for (int i = 0; i < count; ++i) {
      const std::uint64_t seed =
          first_seed + static_cast<std::uint64_t>(i) * 1000003u + static_cast<std::uint64_t>(keep * 1e6);
      rows.push_back(row_of_mask(random_mask(problem, seed).removed, cat(kind, " ", keep, " #", i), kind));
    }
  }

  const unet::Program& base_;
  const std::vector<Scores>& scores_;
  const AuditOptions& options_;
  std::vector<std::string> names_;
  Problem predicting_;  // of the first scores
};

void measure_rows(const unet::Program& base, LossMeter& meter, unet::Shell shell, const AuditOptions& options,
                  std::vector<AuditRow>& rows) {
  std::vector<unet::Program> variants;
  unet::Spec spec;
  spec.base = base.config;
  for (AuditRow& row : rows) {
    spec.shell = shell;
    for (const NamedSpec& named : options.specs) {
      if (row.kind == "spec" && row.name == named.name) spec.shell = named.spec.shell;
    }
    spec.removed = row.removed;
    variants.push_back(unet::prune(base, spec));
    row.keep = static_cast<double>(variants.back().params()) / static_cast<double>(base.params());
  }
  const std::vector<MeasuredLoss> measured = meter.measure(variants, "audit");
  for (std::size_t i = 0; i < rows.size(); ++i) {
    rows[i].true_loss = measured[i].loss;
    rows[i].standard_error = measured[i].standard_error;
  }
}

bool measured(const AuditRow& row) { return std::isfinite(row.true_loss); }

void warn_of_unmeasured(const Audit& audit) {
  std::vector<std::string> names;
  for (const auto* rows : {&audit.rows, &audit.fit_rows}) {
    for (const AuditRow& row : *rows) {
      if (!measured(row)) names.push_back(cat("`", row.name, "`"));
    }
  }
  if (names.empty()) return;
  runtime::warn(cat("audit: the output is not finite without the layers of ", runtime::join(names),
                    ": no true loss there, and no part in any agreement"));
}

std::optional<std::vector<double>> terms_of(const AuditRow& row, const CorrectionKind& kind) {
  std::vector<double> terms;
  for (const auto term : kind.terms) {
    if (!(row.*term)) return std::nullopt;
    terms.push_back(*(row.*term));
  }
  return terms;
}

void correct(Audit& audit) {
  for (const CorrectionKind& kind : correction_kinds()) {
    std::vector<std::vector<double>> predictions;
    std::vector<double> truth;
    for (const AuditRow& row : audit.fit_rows) {
      const auto terms = terms_of(row, kind);
      if (!terms || !measured(row)) continue;
      predictions.push_back(*terms);
      truth.push_back(row.true_loss);
    }
    if (predictions.empty()) continue;
    const Correction correction = fit_correction(predictions, truth);
    for (AuditRow& row : audit.rows) {
      if (const auto terms = terms_of(row, kind)) row.*kind.value = correction.apply(*terms);
    }
    audit.corrections[kind.name] = correction;
  }
}

void agree(Audit& audit) {
  for (const PredictionKind& kind : kPredictions) {
    for (const bool only_random : {false, true}) {
      std::vector<double> predicted, truth;
      for (const AuditRow& row : audit.rows) {
        if (!(row.*kind.value) || !measured(row) || (only_random && row.kind != "random")) continue;
        predicted.push_back(*(row.*kind.value));
        truth.push_back(row.true_loss);
      }
      const bool always = kind.value == &AuditRow::additive || kind.value == &AuditRow::gram;
      if (always || !predicted.empty())
        audit.agreement[std::string(kind.name) + (only_random ? "_random" : "")] = agreement(predicted, truth);
    }
  }
}

Agreement agreement_of(const Scores& scores, const unet::Program& base, const std::vector<AuditRow>& rows) {
  const Problem problem = make_problem(scores, base, params_budget(base, 1));
  std::vector<double> predicted, truth;
  for (const AuditRow& row : rows) {
    if (row.kind != "random" || !measured(row)) continue;
    predicted.push_back(linear_loss(problem, *row.mask));
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
          {"within_quarter", number_or_null(a.within_quarter)},
          {"ratio",
           {{"median", number_or_null(a.ratio_median)},
            {"min", number_or_null(a.ratio_min)},
            {"max", number_or_null(a.ratio_max)}}}};
}

Json row_json(const AuditRow& row) {
  Json removed = Json::array();
  for (const unet::Removal& r : row.removed) removed.push_back(r.layer);
  Json json = {{"name", row.name},
               {"kind", row.kind},
               {"keep", row.keep},
               {"removed", removed},
               {"true", number_or_null(row.true_loss)},
               {"stderr", number_or_null(row.standard_error)}};
  if (!measured(row)) json["why_null"] = "the output without these layers is not finite";
  if (!row.criterion.empty()) json["criterion"] = row.criterion;
  for (const PredictionKind& kind : kPredictions) {
    const bool always = kind.value == &AuditRow::additive || kind.value == &AuditRow::gram;
    if (row.*kind.value) json[kind.name] = *(row.*kind.value);
    else if (always) json[kind.name] = nullptr;
  }
  return json;
}

}  // namespace

Audit run_audit(const unet::Program& base, LossMeter& meter, const std::vector<Scores>& scores,
                const AuditOptions& options) {
  for (const Scores& other : scores) {
    if (other.shell != scores.front().shell)
      throw runtime::usage_error(
          "audit: the scores differ in what goes with a transformer's last block (shell); score ",
          "all with the same --shell");
  }
  Audit audit;
  const RowMaker maker(base, scores, options);
  audit.rows = maker.rows();
  audit.fit_rows = maker.fit_rows();
  measure_rows(base, meter, scores.front().shell, options, audit.rows);
  measure_rows(base, meter, scores.front().shell, options, audit.fit_rows);
  warn_of_unmeasured(audit);
  correct(audit);
  agree(audit);
  for (std::size_t s = 0; s < scores.size(); ++s)
    audit.criteria[maker.names()[s]] = agreement_of(scores[s], base, audit.rows);
  audit.strongest_pairs = strongest(scores.front());
  return audit;
}

Json audit_json(const Audit& audit) {
  Json rows = Json::array(), fit = Json::array(), pairs = Json::array(), agreement = Json::object(),
       criteria = Json::object(), corrections = Json::object();
  for (const AuditRow& row : audit.rows) rows.push_back(row_json(row));
  for (const AuditRow& row : audit.fit_rows) fit.push_back(row_json(row));
  for (const auto& [name, numbers] : audit.agreement) agreement[name] = agreement_json(numbers);
  for (const auto& [name, numbers] : audit.criteria) criteria[name] = agreement_json(numbers);
  for (const auto& [name, correction] : audit.corrections)
    corrections[name] = {{"coefficients", correction.coefficients}, {"masks", correction.masks}};
  for (const Audit::Pair& p : audit.strongest_pairs)
    pairs.push_back({{"a", p.a}, {"b", p.b}, {"inner", p.inner}, {"cosine", p.cosine}});
  Json json = {{"format", "laptopdiff.audit/1"},
               {"rows", rows},
               {"agreement", agreement},
               {"criteria", criteria},
               {"strongest_pairs", pairs}};
  if (!fit.empty()) json["fit"] = {{"rows", fit}, {"corrections", corrections}};
  return json;
}

}  // namespace laptopdiff::pruning
