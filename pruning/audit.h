// Audit: how far the predicted loss of a mask is from its true loss, so that additivity is measured, not believed.
#pragma once

#include <map>

#include "pruning/budgets.h"
#include "pruning/solve.h"
#include "pruning/solvers/agreement.h"
#include "pruning/true_loss.h"

namespace laptopdiff::pruning {

struct NamedSpec {
  std::string name;
  unet::Spec spec;
};

struct AuditOptions {
  std::vector<double> keep;          // shares of the parameters that are kept
  int random_masks = 8;              // at each share
  int fit_masks = 0;                 // more random masks at each share, which the corrections are fitted to
  std::vector<std::string> solvers;  // empty: all that measure nothing
  std::vector<std::string> presets;  // those that fit the base
  std::vector<NamedSpec> specs;      // others to measure
  SearchTools tools;                 // for solvers that measure
  std::uint64_t seed = 0;
};

struct AuditRow {
  std::string name;  // "knapsack 0.5", "random 0.5 #3", "bk-sdm-tiny"; with several scores "magnitude knapsack 0.5"
  std::string kind;  // solver, random, preset, spec
  std::string criterion;  // whose scores chose it; empty where none did
  double keep = 0;        // share of parameters left
  std::vector<unet::Removal> removed;
  std::optional<Mask> mask;              // over the units; none where the removals are not made of them
  std::optional<double> additive, gram;  // predictions by the first scores; none where there is no mask
  std::optional<double> additive_fitted, gram_fitted, both_fitted;  // corrected; only where corrections were fitted
  double true_loss = 0, standard_error = 0;  // not finite where the output was not; such a mask counts in no agreement
};

struct Audit {
  std::vector<AuditRow> rows;
  std::vector<AuditRow> fit_rows;  // kind "fit"
  // "additive", "gram", "additive_fitted", ... over all rows with that prediction, and "..._random" over random ones.
  std::map<std::string, Agreement> agreement;
  // By criterion: its own sums over the random masks of the first scores. Only the ranks mean something where it is
  // no output loss.
  std::map<std::string, Agreement> criteria;
  std::map<std::string, Correction> corrections;  // additive_fitted, gram_fitted, both_fitted
  struct Pair {
    std::string a, b;
    double inner = 0, cosine = 0;  // G_ij and G_ij / sqrt(G_ii G_jj)
  };
  std::vector<Pair> strongest_pairs;
};

// `scores` are of `base` and hold one file a criterion at least; the first's predictions are audited, all choose masks.
// Warns of masks whose output is not finite. Throws Error(usage) where they differ in what they do with shells, and as
// the solvers.
Audit run_audit(const unet::Program& base, LossMeter& meter, const std::vector<Scores>& scores,
                const AuditOptions& options);

runtime::Json audit_json(const Audit& audit);

}  // namespace laptopdiff::pruning
