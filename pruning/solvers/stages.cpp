#include "pruning/solvers/stages.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <numeric>

#include "runtime/error.h"

namespace laptopdiff::pruning {

namespace {

constexpr auto kAdmitAll = [](double, std::span<const double>) { return true; };

StateSet item_choice(const Problem& problem, int item) {
  return single_choice(static_cast<int>(problem.items.size()), {item}, problem.items[item].gain,
                       problem.items[item].cost);
}

// {keep, remove} as far as the item is free, in the order of their ranks; neither is left out for being dominated.
StateSet item_options(const Problem& problem, int item, std::span<const double> ceiling,
                      std::optional<Decision> decision) {
  const StateSet kept = empty_choice(static_cast<int>(problem.budgets.size()), static_cast<int>(problem.items.size()));
  const StateSet removed = add_option(kept, item_choice(problem, item), 0, ceiling, kAdmitAll);
  if (decision) return *decision == Decision::keep ? kept : removed;
  StateSet both = ranks_before(kept, 0, removed, 0) ? kept : removed;
  both.append(ranks_before(kept, 0, removed, 0) ? removed : kept, 0);
  return both;
}

Stage make_group(const Problem& problem, const Group& group, std::span<const double> ceiling,
                 const std::vector<std::optional<Decision>>& decision, std::size_t max_states) {
  const int items = static_cast<int>(problem.items.size());
  Stage stage;
  for (int member : group.members) stage.members.push_back(item_options(problem, member, ceiling, decision[member]));
  stage.all = single_choice(items, group.members, group.all->gain, group.all->cost);
  const StateSet nothing = empty_choice(static_cast<int>(problem.budgets.size()), items);
  stage.options = grow_by_members(
      nothing, stage, [&](StateSet part, const StateSet& from, const StateSet& options, std::size_t option, auto) {
        part = merge(part, add_option(from, options, option, ceiling, kAdmitAll));
        if (part.size() > max_states) throw_too_many_states(part.size(), max_states);
        return part;
      });
  return stage;
}

struct Point {
  double freed = 0;
  double loss = 0;
};

// From the least-loss option rightwards along the lower convex hull.
std::vector<Point> lower_hull(const StateSet& options, const HullBound& bound) {
  std::vector<Point> hull;
  for (std::size_t o = 0; o < options.size(); ++o) {  // ascending loss
    const Point point{bound.weigh(options.freed_of(o)), options.loss[o]};
    if (!hull.empty() && point.freed <= hull.back().freed) continue;
    while (hull.size() > 1) {
      const Point& a = hull[hull.size() - 2];
      const Point& b = hull.back();
      if ((b.loss - a.loss) * (point.freed - b.freed) < (point.loss - b.loss) * (b.freed - a.freed)) break;
      hull.pop_back();
    }
    if (hull.size() == 1 && point.loss <= hull[0].loss) hull.pop_back();
    hull.push_back(point);
  }
  return hull;
}

}  // namespace

void throw_too_many_states(std::size_t states, std::size_t max_states) {
  throw runtime::resource_error("solve: knapsack: ", states, " partial choices are left, more than the limit of ",
                                max_states,
                                "; use fewer budgets at once, round measured costs to a coarser step (a curve: "
                                "give it a quantum), fix some layers, or raise the limit if there is memory for it");
}

std::vector<Stage> make_stages(const Problem& problem, std::span<const double> ceiling, std::size_t max_states) {
  const auto decision = decisions(problem);
  std::vector<const Group*> owner(problem.items.size(), nullptr);
  for (const Group& group : problem.groups) {
    if (!group.all) continue;
    for (int member : group.members) owner[member] = &group;
  }
  std::vector<Stage> stages;
  for (std::size_t i = 0; i < problem.items.size(); ++i) {
    if (!owner[i]) {
      stages.push_back({item_options(problem, static_cast<int>(i), ceiling, decision[i]), {}, {}});
    } else if (owner[i]->members.front() == static_cast<int>(i)) {
      stages.push_back(make_group(problem, *owner[i], ceiling, decision, max_states));
    }
  }
  return stages;
}

std::vector<const StateSet*> options_from(const std::vector<Stage>& stages, std::size_t first) {
  std::vector<const StateSet*> result;
  for (std::size_t s = first; s < stages.size(); ++s) result.push_back(&stages[s].options);
  return result;
}

HullBound::HullBound(std::span<const StateSet* const> stages, std::vector<double> weights)
    : weights_(std::move(weights)) {
  std::vector<Point> segments;
  for (const StateSet* stage : stages) {
    const std::vector<Point> hull = lower_hull(*stage, *this);
    base_loss_ += hull[0].loss;
    base_freed_ += hull[0].freed;
    for (std::size_t p = 1; p < hull.size(); ++p) {
      segments.push_back({hull[p].freed - hull[p - 1].freed, hull[p].loss - hull[p - 1].loss});
    }
  }
  std::sort(segments.begin(), segments.end(),
            [](const Point& a, const Point& b) { return a.loss * b.freed < b.loss * a.freed; });
  freed_before_.push_back(0);
  loss_before_.push_back(0);
  for (const Point& segment : segments) {
    slopes_.push_back(segment.loss / segment.freed);
    freed_before_.push_back(freed_before_.back() + segment.freed);
    loss_before_.push_back(loss_before_.back() + segment.loss);
  }
}

double HullBound::weigh(std::span<const double> amounts) const {
  return std::inner_product(weights_.begin(), weights_.end(), amounts.begin(), 0.0);
}

double HullBound::loss_to_free(double need) const {
  const double more = need - base_freed_;
  if (more <= 0) return base_loss_;
  if (more >= freed_before_.back()) {
    // Sums in another order may differ in the last bits; a feasible choice must not be lost to that.
    const double slack = 1e-12 * (std::abs(need) + base_freed_ + freed_before_.back());
    return more <= freed_before_.back() + slack ? base_loss_ + loss_before_.back()
                                                : std::numeric_limits<double>::infinity();
  }
  const std::size_t s = std::upper_bound(freed_before_.begin(), freed_before_.end(), more) - freed_before_.begin() - 1;
  return base_loss_ + loss_before_[s] + slopes_[s] * (more - freed_before_[s]);
}

double HullBound::slope_at(double need) const {
  const double more = need - base_freed_;
  if (more <= 0 || slopes_.empty()) return 0;
  const std::size_t s = std::upper_bound(freed_before_.begin(), freed_before_.end(), more) - freed_before_.begin() - 1;
  return slopes_[std::min(s, slopes_.size() - 1)];
}

Regrets regrets(const std::vector<Stage>& stages, std::span<const double> weights, std::span<const double> need) {
  Regrets result;
  for (std::size_t d = 0; d < need.size(); ++d) result.bound += weights[d] * need[d];
  for (const Stage& stage : stages) {
    const StateSet& options = stage.options;
    std::vector<double> value = options.loss;
    for (std::size_t o = 0; o < options.size(); ++o) {
      for (std::size_t d = 0; d < need.size(); ++d) value[o] -= weights[d] * options.freed_of(o)[d];
    }
    const double least = *std::min_element(value.begin(), value.end());
    for (double& v : value) v -= least;
    result.bound += least;
    result.of_option.push_back(std::move(value));
  }
  return result;
}

std::vector<double> dual_weights(const std::vector<Stage>& stages, std::span<const double> need) {
  const std::size_t dims = need.size();
  // Each budget's own dual, shared out, is a fair start and sets the scale of the steps.
  std::vector<double> weights(dims, 0.0), best;
  for (std::size_t d = 0; d < dims; ++d) {
    std::vector<double> axis(dims, 0.0);
    axis[d] = 1;
    weights[d] = HullBound(options_from(stages, 0), axis).slope_at(need[d]) / static_cast<double>(dims);
  }
  const std::vector<double> scale = weights;
  double best_bound = -std::numeric_limits<double>::infinity();
  for (int step = 0; step < 400; ++step) {
    const Regrets now = regrets(stages, weights, need);
    if (now.bound > best_bound) {
      best_bound = now.bound;
      best = weights;
    }
    std::vector<double> slack(need.begin(), need.end());
    for (std::size_t s = 0; s < stages.size(); ++s) {
      const auto& excess = now.of_option[s];
      const std::size_t o = std::min_element(excess.begin(), excess.end()) - excess.begin();
      for (std::size_t d = 0; d < dims; ++d) slack[d] -= stages[s].options.freed_of(o)[d];
    }
    for (std::size_t d = 0; d < dims; ++d) {
      const double relative = need[d] > 0 ? slack[d] / need[d] : 0.0;
      weights[d] = std::max(0.0, weights[d] + scale[d] * relative * 4.0 / std::sqrt(step + 1.0));
    }
  }
  return best;
}

}  // namespace laptopdiff::pruning
