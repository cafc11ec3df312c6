#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <set>

#include "pruning/candidates.h"
#include "pruning/greedy.h"
#include "pruning/search.h"
#include "runtime/error.h"

namespace laptopdiff::pruning {

namespace {

constexpr std::array<double, 4> kShares = {1.0, 0.5, 0.75, 0.25};  // of the interactions, for the first candidates
constexpr int kGridSteps = 30;                                     // of the share that fits best, 0 to 1.5
constexpr int kRounds = 3;                                         // after the first candidates

// The candidates so far and the rest of the allowance.
class Trial {
 public:
  Trial(const Problem& problem, int most, const TrueLosses& measure)
      : problem_(problem), most_(static_cast<std::size_t>(most)), measure_(measure) {}

  std::size_t left() const { return most_ - std::min(most_, verified_.size() + waiting_.size()); }
  // False where it is known already, or the allowance is spent.
  bool propose(const Mask& removed, std::string source) {
    if (left() == 0 || !meets(problem_, removed) || !seen_.insert(removed).second) return false;
    waiting_.push_back({removed, std::move(source), 0});
    return true;
  }
  void measure() {
    if (waiting_.empty()) return;
    std::vector<Mask> masks;
    for (const VerifiedMask& mask : waiting_) masks.push_back(mask.removed);
    const std::vector<double> losses = measure_(masks);
    for (std::size_t i = 0; i < waiting_.size(); ++i) {
      waiting_[i].loss = losses[i];
      verified_.push_back(std::move(waiting_[i]));
    }
    waiting_.clear();
  }
  const VerifiedMask& best() const {
    return *std::min_element(verified_.begin(), verified_.end(), [](const VerifiedMask& a, const VerifiedMask& b) {
      return std::isfinite(a.loss) && (!std::isfinite(b.loss) || a.loss < b.loss);
    });
  }
  const std::vector<VerifiedMask>& verified() const { return verified_; }

 private:
  const Problem& problem_;
  std::size_t most_;
  const TrueLosses& measure_;
  std::set<Mask> seen_;
  std::vector<VerifiedMask> waiting_, verified_;
};

// The share of the interactions at which predicted and measured losses are most nearly proportional.
double fitted_share(const Problem& problem, const std::vector<VerifiedMask>& verified) {
  double best = 1, least = std::numeric_limits<double>::infinity();
  for (int step = 0; step <= kGridSteps; ++step) {
    const double share = 1.5 * step / kGridSteps;
    const Problem model = with_interactions(problem, share);
    double sum = 0, squares = 0, count = 0;
    for (const VerifiedMask& mask : verified) {
      const double predicted = quadratic_loss(model, mask.removed);
      if (!(predicted > 0) || !(mask.loss > 0) || !std::isfinite(mask.loss)) continue;
      const double ratio = std::log(mask.loss / predicted);
      sum += ratio;
      squares += ratio * ratio;
      count += 1;
    }
    const double variance = count > 1 ? squares / count - (sum / count) * (sum / count) : 0;
    if (count > 1 && variance < least) {
      least = variance;
      best = share;
    }
  }
  return best;
}

}  // namespace

Verification verify(const Problem& problem, const Mask& plain, int most, const TrueLosses& measure) {
  validate(problem);
  if (most < 1) throw runtime::usage_error("solve: --verify ", most, ": expected 1 or more masks to measure");
  if (!meets(problem, plain)) throw_jointly_impossible(problem);
  Trial trial(problem, most, measure);
  trial.propose(plain, "solver");
  trial.propose(best_of_model(problem, 0), "knapsack");
  for (const double share : kShares) {
    if (problem.form) trial.propose(best_of_model(problem, share), runtime::cat("gram x ", share));
  }
  trial.measure();
  for (int round = 0; round < kRounds && trial.left() > 0; ++round) {
    const double share = problem.form ? fitted_share(problem, trial.verified()) : 0;
    const Problem model = with_interactions(problem, share);
    const std::string label = problem.form ? runtime::cat("gram x ", share, ": ") : "";
    if (problem.form) trial.propose(best_of_model(problem, share), label + "its best");
    const std::size_t rest =
        round + 1 < kRounds ? trial.left() - trial.left() * (kRounds - round - 1) / (kRounds - round) : trial.left();
    std::size_t taken = 0;
    for (const CandidateMask& candidate : neighbours(model, trial.best().removed)) {
      if (taken == rest) break;
      taken += trial.propose(candidate.removed, label + candidate.source) ? 1 : 0;
    }
    trial.measure();
  }
  Verification result;
  result.masks = trial.verified();
  const VerifiedMask& best = trial.best();
  result.solution.removed = best.removed;
  result.solution.freed = freed_by(problem, best.removed);
  result.solution.loss = best.loss;
  result.solution.bound = -std::numeric_limits<double>::infinity();
  return result;
}

}  // namespace laptopdiff::pruning
