#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <map>
#include <set>

#include "pruning/solvers/candidates.h"
#include "pruning/solvers/search.h"
#include "pruning/solvers/surrogate.h"
#include "runtime/error.h"

namespace laptopdiff::pruning {

namespace {

constexpr std::array<double, 4> kShares = {1.0, 0.5, 0.75, 0.25};  // of the interactions, for the first masks
constexpr double kFinalShare = 0.4;                                // of the work, on all samples
constexpr std::size_t kRound = 6;                                  // masks between two fits of the surrogate
constexpr int kDescent = 12;                                       // moves of the surrogate's own descent

struct Explored {
  Mask removed;
  std::string source;
  double loss;
};

bool better(double a, double b) { return std::isfinite(a) && (!std::isfinite(b) || a < b); }

// Masks measured on a few samples, within an allowance.
class Exploration {
 public:
  Exploration(const Problem& problem, std::size_t most, Samples samples, const TrueLosses& measure)
      : problem_(problem), most_(most), samples_(samples), measure_(measure) {}

  std::size_t left() const { return most_ - std::min(most_, explored_.size() + waiting_.size()); }
  // A mask whose loss is known already; costs nothing.
  void know(const Mask& removed, const std::string& source, double loss) {
    seen_.insert(removed);
    explored_.push_back({removed, source, loss});
    ++most_;
  }
  bool knows(const Mask& removed) const { return seen_.contains(removed); }
  void propose(const Mask& removed, const std::string& source) {
    if (left() > 0 && meets(problem_, removed) && seen_.insert(removed).second)
      waiting_.push_back({removed, source, 0});
  }
  // False where nothing was left to measure.
  bool measure() {
    if (waiting_.empty()) return false;
    std::vector<Mask> masks;
    for (const Explored& mask : waiting_) masks.push_back(mask.removed);
    const std::vector<double> losses = measure_(masks, samples_);
    for (std::size_t i = 0; i < waiting_.size(); ++i) {
      waiting_[i].loss = losses[i];
      explored_.push_back(std::move(waiting_[i]));
    }
    waiting_.clear();
    return true;
  }
  const Mask& best() const {
    return std::min_element(explored_.begin(), explored_.end(),
                            [](const Explored& a, const Explored& b) { return better(a.loss, b.loss); })
        ->removed;
  }
  std::vector<MeasuredMask> measured() const {
    std::vector<MeasuredMask> list;
    for (const Explored& mask : explored_) list.push_back({mask.removed, mask.loss});
    return list;
  }
  const std::vector<Explored>& explored() const { return explored_; }

 private:
  const Problem& problem_;
  std::size_t most_;
  Samples samples_;
  const TrueLosses& measure_;
  std::set<Mask> seen_;
  std::vector<Explored> waiting_, explored_;
};

// The neighbours of the best mask so far, and of where the surrogate would go from there, by what it expects of them.
void propose_round(const Problem& problem, Exploration& exploration) {
  const Surrogate surrogate(problem, exploration.measured());
  std::map<Mask, double> expected;
  Mask at = exploration.best();
  for (int step = 0; step <= kDescent; ++step) {
    const Mask* least = nullptr;
    double least_loss = surrogate(at);
    for_each_neighbour(problem, at, [&](const Mask& mask) {
      const auto [entry, fresh] = expected.try_emplace(mask, 0);
      if (fresh) entry->second = surrogate(mask);
      if (entry->second < least_loss - 1e-9) {
        least = &entry->first;
        least_loss = entry->second;
      }
    });
    if (least == nullptr) break;
    at = *least;
  }
  std::vector<const std::pair<const Mask, double>*> order;
  for (const auto& entry : expected) {
    if (!exploration.knows(entry.first)) order.push_back(&entry);
  }
  const std::size_t count = std::min({kRound, order.size(), exploration.left()});
  std::partial_sort(order.begin(), order.begin() + static_cast<std::ptrdiff_t>(count), order.end(),
                    [](const auto* a, const auto* b) { return a->second < b->second; });
  for (std::size_t i = 0; i < count; ++i) exploration.propose(order[i]->first, "surrogate");
}

// The best of what was explored, on all samples.
std::vector<VerifiedMask> finals(const Exploration& exploration, const VerifiedMask& plain, std::size_t count,
                                 const TrueLosses& measure) {
  std::vector<const Explored*> order;
  for (const Explored& mask : exploration.explored()) {
    if (mask.removed != plain.removed) order.push_back(&mask);
  }
  std::stable_sort(order.begin(), order.end(),
                   [](const Explored* a, const Explored* b) { return better(a->loss, b->loss); });
  order.resize(std::min(order.size(), count));
  std::vector<Mask> asked;
  for (const Explored* mask : order) asked.push_back(mask->removed);
  std::vector<VerifiedMask> masks{plain};
  if (asked.empty()) return masks;
  const std::vector<double> losses = measure(asked, Samples::all);
  for (std::size_t i = 0; i < order.size(); ++i) masks.push_back({order[i]->removed, order[i]->source, losses[i]});
  return masks;
}

}  // namespace

Verification verify(const Problem& problem, const Mask& plain, const VerifyOptions& options,
                    const TrueLosses& measure) {
  validate(problem);
  if (!(options.most >= 1) || !(options.few_share > 0) || options.few_share > 1)
    throw runtime::usage_error("solve: --verify ", options.most, ": expected work for 1 mask or more");
  if (!meets(problem, plain)) throw_jointly_impossible(problem);
  const VerifiedMask first{plain, "solver", measure({plain}, Samples::all).front()};
  const double rest = options.most - 1;
  // A search on a few samples needs a mask's work for itself and one for the final; with less, all samples search.
  const bool few = options.few_share < 1 && rest >= 2;
  const double final_work = few ? std::min(rest, std::max(1.0, std::floor(kFinalShare * rest))) : 0;
  const auto allowance = static_cast<std::size_t>((rest - final_work) / (few ? options.few_share : 1) + 1e-9);
  Exploration exploration(problem, allowance, few ? Samples::few : Samples::all, measure);
  exploration.know(plain, "solver", first.loss);
  exploration.propose(best_of_model(problem, 0), "knapsack");
  for (const double share : kShares) {
    if (problem.form) exploration.propose(best_of_model(problem, share), runtime::cat("gram x ", share));
  }
  exploration.measure();
  while (exploration.left() > 0) {
    propose_round(problem, exploration);
    if (!exploration.measure()) break;
  }

  Verification result;
  if (few) {
    result.masks = finals(exploration, first, static_cast<std::size_t>(final_work), measure);
    result.explored = exploration.explored().size() - 1;
  } else {
    for (const Explored& mask : exploration.explored()) result.masks.push_back({mask.removed, mask.source, mask.loss});
  }
  const auto best =
      std::min_element(result.masks.begin(), result.masks.end(),
                       [](const VerifiedMask& a, const VerifiedMask& b) { return better(a.loss, b.loss); });
  result.solution.removed = best->removed;
  result.solution.freed = freed_by(problem, best->removed);
  result.solution.loss = best->loss;
  result.solution.bound = -std::numeric_limits<double>::infinity();
  return result;
}

}  // namespace laptopdiff::pruning
