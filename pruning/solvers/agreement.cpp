#include "pruning/solvers/agreement.h"

#include <Eigen/Dense>
#include <algorithm>
#include <cmath>
#include <numeric>

#include "runtime/median.h"

namespace laptopdiff::pruning {
namespace {

constexpr double kRidge = 1e-3;

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

bool all_positive(const std::vector<double>& values) {
  return std::all_of(values.begin(), values.end(), [](double value) { return value > 0 && std::isfinite(value); });
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
    if (std::abs(predicted[i] - truth[i]) <= 0.25 * truth[i]) result.within_quarter += 1;
    if (predicted[i] <= 0 || truth[i] <= 0) continue;
    ratios.push_back(truth[i] / predicted[i]);
    logs.emplace_back(std::log(predicted[i]), std::log(truth[i]));
    mean += logs.back().second;
  }
  result.within_quarter /= static_cast<double>(predicted.size());  // NaN where there is none
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

double Correction::apply(const std::vector<double>& predictions) const {
  double log = coefficients[0];
  for (std::size_t k = 0; k < predictions.size(); ++k) {
    if (!(predictions[k] > 0)) return predictions[0];
    log += coefficients[k + 1] * std::log(predictions[k]);
  }
  return std::exp(log);
}

Correction fit_correction(const std::vector<std::vector<double>>& predictions, const std::vector<double>& truth) {
  const std::size_t terms = predictions.empty() ? 1 : predictions.front().size();
  Correction correction;
  correction.coefficients.assign(terms + 1, 0.0);
  correction.coefficients[1] = 1;
  const auto size = static_cast<Eigen::Index>(terms + 1);
  Eigen::VectorXd start = Eigen::VectorXd::Zero(size);
  start[1] = 1;
  // The ridge on the slopes alone: a common factor is what the fit is for.
  Eigen::MatrixXd normal = kRidge * Eigen::MatrixXd::Identity(size, size);
  normal(0, 0) = 1e-9;
  Eigen::VectorXd right = Eigen::VectorXd::Zero(size);
  std::vector<Eigen::VectorXd> rows;
  for (std::size_t i = 0; i < predictions.size(); ++i) {
    if (!all_positive(predictions[i]) || !(truth[i] > 0)) continue;
    Eigen::VectorXd row(size);
    row[0] = 1;
    for (std::size_t k = 0; k < terms; ++k) row[static_cast<Eigen::Index>(k) + 1] = std::log(predictions[i][k]);
    normal += row * row.transpose();
    right += row * (std::log(truth[i]) - row.dot(start));
    ++correction.masks;
  }
  if (correction.masks == 0) return correction;
  const Eigen::VectorXd fitted = start + normal.ldlt().solve(right);
  for (Eigen::Index k = 0; k < size; ++k) correction.coefficients[static_cast<std::size_t>(k)] = fitted[k];
  return correction;
}

}  // namespace laptopdiff::pruning
