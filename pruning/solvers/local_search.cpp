#include "pruning/solvers/local_search.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

#include "runtime/random.h"

namespace laptopdiff::pruning {

namespace {

struct Change {
  int variable;
  int sign;  // +1: 0 to 1, -1: 1 to 0
};

// A mask with all that is needed to price a move in a few operations.
class Point {
 public:
  Point(const BinaryForm& form, const Mask& removed)
      : form_(form),
        variable_(form.items, -1),
        y_(form.variables(removed)),
        pull_(form.size, 0.0),
        freed_(form.budgets, 0.0),
        gone_(form.groups.size(), 0) {
    for (int v = 0; v < form.size; ++v) {
      if (form.item[v] >= 0) variable_[form.item[v]] = v;
      if (form.item[v] >= 0 && form.group[v] >= 0) gone_[form.group[v]] += removed[form.item[v]];
      if (y_[v]) add(v, +1);
    }
    for (int i = 0; i < form.items; ++i) {
      if (!is_fixed(variable_[i])) movable_.push_back(i);
    }
    removed_ = removed;
  }

  const Mask& removed() const { return removed_; }
  const std::vector<int>& movable() const { return movable_; }

  // Prices flipping these items. Keeps the changes for apply().
  void price(std::span<const int> items) {
    changes_.clear();
    for (std::size_t i = 0; i < items.size(); ++i) add_change(items, i);
    loss_change_ = 0;
    for (std::size_t a = 0; a < changes_.size(); ++a) {
      const Change& first = changes_[a];
      loss_change_ += first.sign * 2 * pull_[first.variable] + form_.at(first.variable, first.variable);
      for (std::size_t b = 0; b < a; ++b) {
        loss_change_ += 2 * first.sign * changes_[b].sign * form_.at(first.variable, changes_[b].variable);
      }
    }
  }

  double loss_change() const { return loss_change_; }

  bool stays_feasible() const { return shortfall(true) <= 0; }

  // The shares of the needs that are not met, summed.
  double shortfall(bool after_changes) const {
    double sum = 0;
    for (int d = 0; d < form_.budgets; ++d) {
      double freed = freed_[d];
      for (const Change& change : changes_) {
        if (after_changes) freed += change.sign * form_.cost_of(d, change.variable);
      }
      if (freed < form_.need[d]) sum += (form_.need[d] - freed) / form_.need[d];
    }
    return sum;
  }

  void apply(std::span<const int> items) {
    for (const Change& change : changes_) add(change.variable, change.sign);
    for (const Change& change : changes_) y_[change.variable] = change.sign > 0;
    for (int i : items) {
      removed_[i] = !removed_[i];
      const int group = form_.group[variable_[i]];
      if (group >= 0) gone_[group] += removed_[i] ? 1 : -1;
    }
  }

 private:
  bool is_fixed(int v) const {
    if (form_.domain[v] == Domain::free) return false;
    // The member of a group of one is never set itself; its removal is the group's `whole`.
    const int group = form_.group[v];
    return group < 0 || form_.groups[group].members.size() > 1 ||
           form_.domain[form_.groups[group].whole] != Domain::free;
  }

  void add(int v, int sign) {
    for (int u = 0; u < form_.size; ++u) pull_[u] += sign * form_.at(v, u);
    for (int d = 0; d < form_.budgets; ++d) freed_[d] += sign * form_.cost_of(d, v);
  }

  void add_change(std::span<const int> items, std::size_t which) {
    const int v = variable_[items[which]];
    const int group = form_.group[v];
    if (group < 0) {
      changes_.push_back({v, y_[v] ? -1 : +1});
      return;
    }
    int after = gone_[group];
    for (std::size_t i = 0; i < items.size(); ++i) {
      if (form_.group[variable_[items[i]]] != group) continue;
      if (i < which) return;  // the group was dealt with at its first flipped member
      after += removed_[items[i]] ? -1 : +1;
    }
    const int members = static_cast<int>(form_.groups[group].members.size());
    if (gone_[group] < members && after < members) {
      for (int i : items) {
        const int u = variable_[i];
        if (form_.group[u] == group) changes_.push_back({u, y_[u] ? -1 : +1});
      }
    } else {
      add_group_change(items, form_.groups[group], after == members);
    }
  }

  // The group becomes empty, or was empty and gets members back.
  void add_group_change(std::span<const int> items, const VariableGroup& group, bool empties) {
    changes_.push_back({group.whole, empties ? +1 : -1});
    for (int u : group.members) {
      const bool flipped = std::find(items.begin(), items.end(), form_.item[u]) != items.end();
      if (!flipped) changes_.push_back({u, empties ? -1 : +1});
    }
  }

  const BinaryForm& form_;
  std::vector<int> variable_;  // of an item
  std::vector<int> movable_;
  std::vector<std::uint8_t> y_;
  std::vector<double> pull_;  // Qy
  std::vector<double> freed_;
  std::vector<int> gone_;  // members removed, a group
  Mask removed_;
  std::vector<Change> changes_;
  double loss_change_ = 0;
};

class Descent {
 public:
  Descent(const BinaryForm& form, const Mask& removed) : point_(form, removed) {
    for (int v = 0; v < form.size; ++v) scale_ = std::max(scale_, std::abs(form.at(v, v)));
  }

  Point& point() { return point_; }

  void run() {
    while (singles() || pairs() || triples()) {
    }
  }

  // Adds the cheapest items until the budgets are met again; false where that does not do it.
  bool mend() {
    while (point_.shortfall(false) > 0) {
      int best = -1;
      double best_ratio = std::numeric_limits<double>::infinity();
      const double missing = point_.shortfall(false);
      for (int i : point_.movable()) {
        if (point_.removed()[i]) continue;
        point_.price(std::array{i});
        const double gained = missing - point_.shortfall(true);
        if (gained > 0 && point_.loss_change() / gained < best_ratio) {
          best = i;
          best_ratio = point_.loss_change() / gained;
        }
      }
      if (best < 0) return false;
      flip(best);
    }
    return true;
  }

  void flip(int item) {
    point_.price(std::array{item});
    point_.apply(std::array{item});
  }

 private:
  bool try_move(std::span<const int> items) {
    point_.price(items);
    // Smaller gains are rounding and could go round in circles.
    if (point_.loss_change() >= -1e-12 * scale_ || !point_.stays_feasible()) return false;
    point_.apply(items);
    return true;
  }

  bool singles() {
    bool moved = false;
    for (int i : point_.movable()) moved |= try_move(std::array{i});
    return moved;
  }

  bool pairs() {
    bool moved = false;
    for (int i : point_.movable()) {
      for (int j : point_.movable()) {
        if (j >= i) break;
        if (point_.removed()[i] != point_.removed()[j]) moved |= try_move(std::array{i, j});
      }
    }
    return moved;
  }

  // Two of one kind and one of the other.
  bool triples() {
    for (int i : point_.movable()) {
      for (int j : point_.movable()) {
        if (j >= i) break;
        if (point_.removed()[i] != point_.removed()[j]) continue;
        for (int k : point_.movable()) {
          if (point_.removed()[k] != point_.removed()[i] && try_move(std::array{i, j, k})) return true;
        }
      }
    }
    return false;
  }

  Point point_;
  double scale_ = 0;
};

}  // namespace

Mask improve(const BinaryForm& form, const Mask& removed) {
  Descent descent(form, removed);
  descent.run();
  // Freed amounts were kept up to date move by move; rounding must not let an infeasible mask through.
  return form.is_feasible(form.variables(descent.point().removed())) ? descent.point().removed() : removed;
}

Mask search_locally(const BinaryForm& form, const Mask& removed, int restarts, std::uint64_t seed) {
  Mask best = improve(form, removed);
  double best_loss = form.loss(form.variables(best));
  for (int restart = 0; restart < restarts; ++restart) {
    runtime::Stream draws(seed, runtime::Purpose::random_mask, static_cast<std::uint64_t>(restart));
    Descent descent(form, best);
    const auto& movable = descent.point().movable();
    if (movable.empty()) break;
    const std::size_t flips = 2 + draws.below(2 + movable.size() / 6);
    for (std::size_t f = 0; f < flips; ++f) descent.flip(movable[draws.below(movable.size())]);
    if (!descent.mend()) continue;
    descent.run();
    const double loss = form.loss(form.variables(descent.point().removed()));
    if (loss < best_loss && form.is_feasible(form.variables(descent.point().removed()))) {
      best_loss = loss;
      best = descent.point().removed();
    }
  }
  return best;
}

}  // namespace laptopdiff::pruning
