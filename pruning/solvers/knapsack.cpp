#include "pruning/solvers/knapsack.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "pruning/solvers/stages.h"
#include "runtime/error.h"

namespace laptopdiff::pruning {

namespace {

// One run over the stages. `width` limits a front to its most promising states, which turns the exact search into a
// quick heuristic whose result prunes the exact one.
class Search {
 public:
  Search(std::vector<Stage> stages, std::vector<double> need, int items, std::size_t max_states)
      : stages_(std::move(stages)), need_(std::move(need)), items_(items), max_states_(max_states) {
    const std::size_t dims = need_.size();
    for (std::size_t d = 0; d < dims; ++d) {
      directions_.emplace_back(dims, 0.0);
      directions_.back()[d] = 1;
    }
    if (dims != 1) directions_.push_back(dual_weights(stages_, need_));
    for (const Stage& stage : stages_) {
      double most = 0;
      for (double loss : stage.options.loss) most = std::max(most, std::abs(loss));
      slack_ += 1e-12 * most;  // rounding of sums taken in another order
    }
  }

  // The best choice, or an empty set where none is feasible.
  StateSet solve() {
    for (std::size_t width : {std::size_t(256), std::size_t(4096), std::numeric_limits<std::size_t>::max()}) {
      drop_and_order();
      truncated_ = false;
      run(width);
      if (!truncated_) break;
    }
    return best_;
  }

 private:
  double cutoff() const { return best_.size() == 0 ? std::numeric_limits<double>::infinity() : best_.loss[0] + slack_; }

  // Drops options that no choice as good as the best known can contain, and puts the clear-cut stages first, so that
  // fronts stay short for as long as possible.
  void drop_and_order() {
    std::vector<double> weights = directions_.back();
    const HullBound bound(options_from(stages_, 0), weights);
    const double slope = need_.size() == 1 ? bound.slope_at(need_[0]) : 1.0;
    for (double& weight : weights) weight *= slope;
    const Regrets known = regrets(stages_, weights, need_);
    std::vector<std::pair<double, std::size_t>> order;
    for (std::size_t s = 0; s < stages_.size(); ++s) {
      StateSet left{stages_[s].options.dims, stages_[s].options.words, {}, {}, {}, {}};
      std::vector<double> excess = known.of_option[s];
      for (std::size_t o = 0; o < excess.size(); ++o) {
        if (known.bound + excess[o] <= cutoff()) left.append(stages_[s].options, o);
      }
      stages_[s].options = std::move(left);
      std::sort(excess.begin(), excess.end());
      order.emplace_back(excess.size() > 1 ? -excess[1] : -std::numeric_limits<double>::infinity(), s);
    }
    std::sort(order.begin(), order.end());
    std::vector<Stage> sorted;
    for (const auto& [excess, s] : order) sorted.push_back(std::move(stages_[s]));
    stages_ = std::move(sorted);
  }

  // Lower bounds on what is left to decide, one a direction, and the needs weighed the same way.
  struct Bounds {
    std::vector<HullBound> of_direction;
    std::vector<double> needs;
  };

  // Of the stages after `stage`, and of its members after `member` (one past the last: none).
  Bounds bounds_after(std::size_t stage, std::size_t member) const {
    std::vector<const StateSet*> left = options_from(stages_, stage + 1);
    for (std::size_t m = member + 1; m < stages_[stage].members.size(); ++m) left.push_back(&stages_[stage].members[m]);
    Bounds bounds;
    for (const auto& direction : directions_) {
      bounds.of_direction.emplace_back(left, direction);
      bounds.needs.push_back(bounds.of_direction.back().weigh(need_));
    }
    return bounds;
  }

  // A lower bound on the loss of every completion of a state.
  static double bound_of(const Bounds& bounds, double loss, std::span<const double> freed) {
    double bound = -std::numeric_limits<double>::infinity();
    for (std::size_t b = 0; b < bounds.needs.size(); ++b) {
      const HullBound& hull = bounds.of_direction[b];
      bound = std::max(bound, hull.loss_to_free(bounds.needs[b] - hull.weigh(freed)));
    }
    return loss + bound;
  }

  void run(std::size_t width) {
    StateSet front = empty_choice(static_cast<int>(need_.size()), items_);
    for (std::size_t s = 0; s < stages_.size() && front.size() > 0; ++s) front = advance(front, s, width);
    for (std::size_t i = 0; i < front.size(); ++i) {
      if (std::ranges::equal(front.freed_of(i), need_, std::greater_equal<>())) {
        if (best_.size() == 0 || ranks_before(front, i, best_, 0)) {
          best_ = StateSet{front.dims, front.words, {}, {}, {}, {}};
          best_.append(front, i);
        }
        return;  // states are in the order of their ranks
      }
    }
  }

  StateSet advance(const StateSet& front, std::size_t stage, std::size_t width) {
    const Stage& now = stages_[stage];
    if (now.options.size() > 4 * now.members.size() && !now.members.empty()) {
      std::size_t at = now.members.size() + 1;
      Bounds bounds;
      return grow_by_members(
          front, now,
          [&](StateSet part, const StateSet& from, const StateSet& options, std::size_t option, std::size_t member) {
            if (member != at) bounds = bounds_after(stage, at = member);
            return narrow(extend(std::move(part), from, options, option, bounds), bounds, width);
          });
    }
    const Bounds bounds = bounds_after(stage, now.members.size());
    StateSet next{front.dims, front.words, {}, {}, {}, {}};
    for (std::size_t o = 0; o < now.options.size(); ++o) next = extend(std::move(next), front, now.options, o, bounds);
    return narrow(std::move(next), bounds, width);
  }

  // `next` merged with the states of `front` plus an option, but for those that cannot beat the best known.
  StateSet extend(StateSet next, const StateSet& front, const StateSet& options, std::size_t option,
                  const Bounds& bounds) const {
    const double limit = cutoff();
    const auto admit = [&](double loss, std::span<const double> freed) {
      const double bound = bound_of(bounds, loss, freed);
      return bound <= limit && bound < std::numeric_limits<double>::infinity();
    };
    next = merge(next, add_option(front, options, option, need_, admit));
    if (next.size() > max_states_) throw_too_many_states(next.size(), max_states_);
    return next;
  }

  StateSet narrow(StateSet front, const Bounds& bounds, std::size_t width) {
    if (front.size() <= width) return front;
    truncated_ = true;
    std::vector<double> bound(front.size());
    for (std::size_t i = 0; i < front.size(); ++i) bound[i] = bound_of(bounds, front.loss[i], front.freed_of(i));
    return most_promising(front, bound, width);
  }

  static StateSet most_promising(const StateSet& front, const std::vector<double>& bound, std::size_t width) {
    std::vector<double> sorted = bound;
    std::nth_element(sorted.begin(), sorted.begin() + width - 1, sorted.end());
    StateSet kept{front.dims, front.words, {}, {}, {}, {}};
    for (std::size_t i = 0; i < front.size() && kept.size() < width; ++i) {
      if (bound[i] <= sorted[width - 1]) kept.append(front, i);
    }
    return kept;
  }

  std::vector<Stage> stages_;
  std::vector<double> need_;
  int items_ = 0;
  std::size_t max_states_ = 0;
  std::vector<std::vector<double>> directions_;
  double slack_ = 0;
  StateSet best_;
  bool truncated_ = false;
};

Solution solution_of(const Problem& problem, Mask removed) {
  Solution solution;
  solution.freed = freed_by(problem, removed);
  solution.loss = solution.bound = linear_loss(problem, removed);
  solution.removed = std::move(removed);
  solution.proven_optimal = true;
  return solution;
}

// The problem with only its first budget, costs rounded down to a multiple of the quantum (0 = as they are).
Problem first_budget(const Problem& problem, double quantum) {
  Problem result = problem;
  result.form.reset();
  result.budgets.resize(1);
  result.budgets[0].must_free = 0;
  const auto round = [&](Item& item) {
    item.row.reset();
    item.cost.resize(1);
    // The nudge keeps a cost that is a multiple up to rounding; the whole multiple itself is added exactly.
    if (quantum > 0) item.cost[0] = std::floor(item.cost[0] / quantum * (1 + 1e-12));
  };
  for (Item& item : result.items) round(item);
  for (Group& group : result.groups) {
    if (group.all) round(*group.all);
  }
  return result;
}

}  // namespace

Solution solve_knapsack(const Problem& problem, const KnapsackOptions& options) {
  validate(problem);
  check_reachable(problem);
  const std::vector<double> need = requirements(problem);
  Search search(make_stages(problem, need, options.max_states), need, static_cast<int>(problem.items.size()),
                options.max_states);
  const StateSet best = search.solve();
  if (best.size() == 0) throw_jointly_impossible(problem);
  return solution_of(problem, unpack(best.mask_of(0), problem.items.size()));
}

struct KnapsackCurve::Data {
  Problem problem;  // one budget
  StateSet front;   // freed and loss as freed_by and linear_loss state them
};

std::size_t KnapsackCurve::size() const { return data_->front.size(); }
double KnapsackCurve::freed(std::size_t point) const { return data_->front.freed[point]; }
double KnapsackCurve::loss(std::size_t point) const { return data_->front.loss[point]; }
Mask KnapsackCurve::removed(std::size_t point) const {
  return unpack(data_->front.mask_of(point), data_->problem.items.size());
}

Solution KnapsackCurve::at_target(double must_free) const {
  Problem problem = data_->problem;
  problem.budgets[0].must_free = must_free;
  check_reachable(problem);
  const double need = requirements(problem)[0];
  const auto& freed = data_->front.freed;
  const std::size_t point = std::lower_bound(freed.begin(), freed.end(), need) - freed.begin();
  if (point == size()) {
    throw runtime::usage_error("solve: the curve over `", problem.budgets[0].name, "` ends at ", freed.back(),
                               " freed, less than ", must_free, "; take a smaller quantum");
  }
  return solution_of(problem, removed(point));
}

KnapsackCurve knapsack_curve(const Problem& problem, const CurveOptions& options) {
  validate(problem);
  if (problem.budgets.empty()) throw runtime::usage_error("solve: a curve needs a budget, e.g. params");
  if (!(options.quantum >= 0) || !std::isfinite(options.quantum)) {
    throw runtime::usage_error("solve: the curve's quantum is ", options.quantum, ", expected 0 (exact) or more");
  }
  const std::vector<double> unlimited(1, std::numeric_limits<double>::infinity());
  const int items = static_cast<int>(problem.items.size());
  StateSet front = empty_choice(1, items);
  const auto extend = [&](StateSet part, const StateSet& from, const StateSet& choices, std::size_t choice, auto...) {
    part = merge(part, add_option(from, choices, choice, unlimited, [](double, auto) { return true; }));
    if (part.size() > options.max_states) throw_too_many_states(part.size(), options.max_states);
    return part;
  };
  for (const Stage& stage : make_stages(first_budget(problem, options.quantum), unlimited, options.max_states)) {
    if (stage.options.size() > 4 * stage.members.size() && !stage.members.empty()) {
      front = grow_by_members(front, stage, extend);
      continue;
    }
    StateSet next{1, front.words, {}, {}, {}, {}};
    for (std::size_t o = 0; o < stage.options.size(); ++o) next = extend(std::move(next), front, stage.options, o);
    front = std::move(next);
  }
  // Restated per mask, so that a point's numbers do not depend on the order of the stages or on the quantum.
  auto data = std::make_shared<KnapsackCurve::Data>();
  data->problem = first_budget(problem, 0);
  data->front = StateSet{1, front.words, {}, {}, {}, {}};
  for (std::size_t i = 0; i < front.size(); ++i) {
    const Mask mask = unpack(front.mask_of(i), problem.items.size());
    front.freed[i] = freed_by(data->problem, mask)[0];
    front.loss[i] = linear_loss(data->problem, mask);
    if (i > 0 && front.freed[i] <= data->front.freed.back()) continue;
    data->front.append(front, i);
  }
  KnapsackCurve curve;
  curve.data_ = std::move(data);
  return curve;
}

}  // namespace laptopdiff::pruning
