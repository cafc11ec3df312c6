#include "pruning/score_checks.h"

#include <algorithm>
#include <cmath>
#include <tuple>

#include "pruning/solvers/problem.h"
#include "runtime/error.h"

namespace laptopdiff::pruning {
namespace {

using runtime::cat;
using runtime::input_error;

// The diagonal and the score are the same mean, but the differences may have been taken in bf16.
constexpr double kSameMean = 0.05;
// Of exact arithmetic: symmetry, and that no two differences have more in common than either has.
constexpr double kRounding = 1e-6;

// The scores of all samples, or of one interval of timesteps: rows are units, then shells.
struct Rows {
  std::string where;
  const std::vector<Estimate>& units;
  const std::vector<Estimate>& shells;
  const Gram& gram;

  const Estimate& at(std::size_t row) const { return row < units.size() ? units[row] : shells[row - units.size()]; }
  std::size_t size() const { return units.size() + shells.size(); }
};

class RowsCheck {
 public:
  RowsCheck(const Scores& scores, Rows rows) : scores_(scores), rows_(std::move(rows)) {}

  void run() const {
    for (std::size_t i = 0; i < rows_.size(); ++i) check_estimate(i);
    if (rows_.gram.empty()) return;
    for (std::size_t i = 0; i < rows_.size(); ++i) check_diagonal(i);
    for (std::size_t i = 0; i < rows_.size(); ++i) {
      for (std::size_t j = 0; j < i; ++j) check_pair(i, j);
    }
  }

 private:
  const std::string& name(std::size_t i) const {
    return i < scores_.units.size() ? scores_.units[i].layer : scores_.shells[i - scores_.units.size()].path;
  }

  std::string estimate_entry(std::size_t i) const {
    const bool unit = i < rows_.units.size();
    return cat(rows_.where, unit ? ": units[" : ": shells[", unit ? i : i - rows_.units.size(), "] (", name(i), ")");
  }
  std::string gram_entry(std::size_t i, std::size_t j) const {
    return cat(rows_.where, ": gram[", i, "][", j, "] (", name(i), i == j ? "" : ", " + name(j), ")");
  }

  static void check_size(double value, const std::string& entry) {
    if (std::abs(value) > kLargest)
      throw input_error(entry, " is ", value, ", expected at most ", kLargest, " in magnitude; score again");
  }

  void check_estimate(std::size_t i) const {
    const Estimate& estimate = rows_.at(i);
    if (estimate.standard_error < 0)
      throw input_error(estimate_entry(i), ": `stderr` is ", estimate.standard_error, ", expected 0 or more");
    check_size(estimate.value.value_or(0), estimate_entry(i) + ": `score`");
    check_size(estimate.standard_error, estimate_entry(i) + ": `stderr`");
  }

  void check_diagonal(std::size_t i) const {
    const std::optional<double>&own = rows_.gram[i][i], &score = rows_.at(i).value;
    if (own.has_value() != score.has_value()) {
      throw input_error(gram_entry(i, i), own ? cat(" is ", *own) : " is null", ", but its `score` is ",
                        score ? cat(*score) : "null", "; score again");
    }
    if (!own) return;
    check_size(*own, gram_entry(i, i));
    if (*own < 0) throw input_error(gram_entry(i, i), " is ", *own, ", expected 0 or more: it is a mean of squares");
    const bool same_mean = scores_.criterion == "output_loss" || scores_.criterion == "gram";
    if (same_mean && std::abs(*own - *score) > kSameMean * std::max(*own, std::abs(*score))) {
      throw input_error(gram_entry(i, i), " is ", *own, ", but its `score` is ", *score, ": by the criterion `",
                        scores_.criterion, "` they are the same; score again");
    }
  }

  void check_pair(std::size_t i, std::size_t j) const {
    const auto &one = rows_.gram[i][j], &other = rows_.gram[j][i];
    const bool both = rows_.gram[i][i] && rows_.gram[j][j];
    for (const auto& [entry, row, column] : {std::tuple{one, i, j}, {other, j, i}}) {
      if (entry.has_value() == both) continue;
      throw input_error(gram_entry(row, column), entry ? cat(" is ", *entry) : " is null", ", but ",
                        both ? "both have a score" : "one of the two has no score", "; score again");
    }
    if (!both) return;
    const double most = std::sqrt(*rows_.gram[i][i]) * std::sqrt(*rows_.gram[j][j]);
    if (!(std::abs(*one - *other) <= kRounding * most)) {
      throw input_error(gram_entry(i, j), " is ", *one, ", but gram[", j, "][", i, "] is ", *other,
                        ": the matrix must be symmetric; score again");
    }
    if (std::abs(*one) > (1 + kRounding) * most) {
      throw input_error(gram_entry(i, j), " is ", *one, ", expected at most ", most,
                        " in magnitude, as the diagonal says; score again");
    }
  }

  const Scores& scores_;
  const Rows rows_;
};

// Of a shell that the base has: the units and what removing it frees.
void check_shells(const Scores& scores, const std::string& where) {
  const unet::Program base = unet::build_base(scores.base);
  const std::vector<unet::ShellGroup> groups = unet::find_shells(base, scores.units);
  for (std::size_t i = 0; i < scores.shells.size(); ++i) {
    const ShellScore& shell = scores.shells[i];
    const std::string entry = cat(where, ": shells[", i, "] (", shell.path, ")");
    const auto group =
        std::find_if(groups.begin(), groups.end(), [&](const unet::ShellGroup& g) { return g.path == shell.path; });
    if (group == groups.end()) throw input_error(entry, ": is no Transformer2DModel of the base");
    if (group->units != shell.units) throw input_error(entry, ": `units` are not the blocks that it has in this base");
    unet::Spec spec;
    spec.base = scores.base;
    spec.removed = {{shell.path, unet::How::bypass}};
    const unet::Program without = unet::prune(base, spec);
    for (const auto& [key, value, expected] : {std::tuple{"params", shell.params, base.params() - without.params()},
                                               {"macs", shell.macs, base.macs() - without.macs()}}) {
      if (value != expected) throw input_error(entry, ": `", key, "` is ", value, ", this base gives ", expected);
    }
  }
}

void check_samples(const Scores& scores, const std::string& where) {
  if (scores.samples < 0) throw input_error(where, ": `samples` is ", scores.samples, ", expected at least 0");
  std::int64_t left = scores.samples;
  for (std::size_t i = 0; i < scores.bins.size(); ++i) {
    if (scores.bins[i].samples > left) {
      throw input_error(where, ": bins[", i, "]: `samples` is ", scores.bins[i].samples, ", but only ", left,
                        " of the ", scores.samples, " are left for it");
    }
    left -= scores.bins[i].samples;
  }
}

}  // namespace

void check_scores(const Scores& scores, const std::string& where) {
  check_shells(scores, where);
  check_samples(scores, where);
  std::vector<Estimate> shells;
  for (const ShellScore& shell : scores.shells) shells.push_back(shell.score);
  RowsCheck(scores, {where, scores.unit_scores, shells, scores.gram}).run();
  for (std::size_t i = 0; i < scores.bins.size(); ++i) {
    const ScoreBin& bin = scores.bins[i];
    RowsCheck(scores, {cat(where, ": bins[", i, "]"), bin.unit_scores, bin.shell_scores, bin.gram}).run();
  }
}

}  // namespace laptopdiff::pruning
