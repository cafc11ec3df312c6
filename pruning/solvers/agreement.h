// How well predicted losses agree with true ones, and a correction fitted to a few of them. Knows no torch.
#pragma once

#include <string>
#include <vector>

namespace laptopdiff::pruning {

// Agreement of predictions with true losses over masks.
struct Agreement {
  int rows = 0;
  double spearman = 0;
  double r2_log = 0;        // R^2 of log(true) against log(predicted), no fit
  double ratio_median = 0;  // true / predicted
  double ratio_min = 0, ratio_max = 0;
  double within_quarter = 0;  // share of all masks whose prediction is within 25 % of the true loss
};

// Ties get their mean rank. NaN where either side is constant or there are fewer than 2 values.
double spearman(const std::vector<double>& a, const std::vector<double>& b);
Agreement agreement(const std::vector<double>& predicted, const std::vector<double>& truth);

// true ~ exp(c_0) * p_1^c_1 * ... * p_k^c_k, fitted by least squares of the logs, lightly drawn towards c = (0, 1, 0,
// ...), which is the first prediction as it stands: few masks must not bend it far.
struct Correction {
  std::vector<double> coefficients;  // c_0, c_1, ...
  int masks = 0;                     // that it was fitted to
  double apply(const std::vector<double>& predictions) const;
};
// `predictions`: one row a mask. Masks with a number that is not positive are left out; with none left the correction
// is the first prediction as it stands.
Correction fit_correction(const std::vector<std::vector<double>>& predictions, const std::vector<double>& truth);

}  // namespace laptopdiff::pruning
