// Audit: how far the predicted loss of a mask is from its true loss, so that additivity is measured, not believed.
#pragma once

#include "pruning/budgets.h"
#include "pruning/engine.h"
#include "pruning/scores.h"
#include "pruning/solve.h"

namespace laptopdiff::pruning {

struct AuditOptions {
  std::vector<double> keep;          // shares of the parameters that are kept
  int random_masks = 8;              // at each share
  std::vector<std::string> presets;  // those that fit the base
  std::uint64_t seed = 0;
  std::int64_t batch = 0;  // samples at once; 0: by the memory limit
  EngineOptions engine;
};

struct AuditRow {
  std::string name;  // "knapsack 0.5", "random 0.5 #3", "bk-sdm-tiny"
  std::string kind;  // solver, random, preset
  double keep = 0;   // share of parameters left
  std::vector<unet::Removal> removed;
  std::optional<double> additive, gram;  // predictions; none where the mask is not made of scored units
  double true_loss = 0, standard_error = 0;
};

// Agreement of predictions with true losses over rows.
struct Agreement {
  int rows = 0;
  double spearman = 0;
  double r2_log = 0;        // R^2 of log(true) against log(predicted), no fit
  double ratio_median = 0;  // true / predicted
  double ratio_min = 0, ratio_max = 0;
};

struct Audit {
  std::vector<AuditRow> rows;
  Agreement additive_all, gram_all, additive_random, gram_random;
  struct Pair {
    std::string a, b;
    double inner = 0, cosine = 0;  // G_ij and G_ij / sqrt(G_ii G_jj)
  };
  std::vector<Pair> strongest_pairs;
};

Audit run_audit(const unet::Program& base, const unet::Executor& executor, const Scores& scores,
                const unet::Inputs& inputs, const AuditOptions& options);

// Ties get their mean rank. NaN where either side is constant or there are fewer than 2 values.
double spearman(const std::vector<double>& a, const std::vector<double>& b);
Agreement agreement(const std::vector<double>& predicted, const std::vector<double>& truth);

runtime::Json audit_json(const Audit& audit);

}  // namespace laptopdiff::pruning
