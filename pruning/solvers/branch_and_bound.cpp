#include "pruning/solvers/branch_and_bound.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>
#include <queue>

#include "pruning/solvers/local_search.h"
#include "pruning/solvers/ordered_form.h"
#include "pruning/solvers/relaxation.h"
#include "pruning/solvers/stages.h"

namespace laptopdiff::pruning {

namespace {

constexpr int kTuningRounds = 8;

// The budgets' duals where the loss is replaced by the given gain of every variable.
std::vector<double> budget_weights(const Problem& problem, const BinaryForm& form, std::span<const double> gain) {
  if (form.budgets <= 1) return std::vector<double>(form.budgets, 1.0);
  Problem linear = problem;
  for (int v = 0; v < form.size; ++v) {
    if (form.item[v] >= 0) linear.items[form.item[v]].gain = gain[v];
  }
  for (const VariableGroup& group : form.groups) linear.groups[group.source].all->gain = gain[group.whole];
  return dual_weights(make_stages(linear, form.need, std::numeric_limits<std::size_t>::max()), form.need);
}

class Tree {
 public:
  Tree(const Problem& problem, const BinaryForm& form, std::vector<std::uint8_t> start, std::int64_t max_nodes)
      : problem_(problem), form_(form), max_nodes_(max_nodes) {
    best_.y = std::move(start);
    best_.loss = form.loss(best_.y);
    for (int v = 0; v < form.size; ++v) {
      if (form.domain[v] == Domain::zero || form.domain[v] == Domain::one) ++first_level_;
      scale_ = std::max(scale_, std::abs(form.at(v, v)));
    }
  }

  TreeResult run() {
    best_.bound = best_.loss;
    best_.proven = true;
    if (first_level_ == form_.size) return best_;
    prepare();
    grow();
    return best_;
  }

 private:
  struct Open {
    double bound;
    int level;
    std::uint32_t slot;
    std::uint64_t number;  // of creation, so that ties have an order
    bool operator<(const Open& other) const {
      return bound != other.bound ? bound > other.bound : number < other.number;
    }
  };

  double cutoff() const { return best_.loss - 1e-9 * std::max(std::abs(best_.loss), 1e-3 * scale_); }

  Node root(const OrderedForm& ordered) const {
    Node node;
    node.level = first_level_;
    for (int v = 0; v < first_level_; ++v) node.fixed.push_back(ordered.form.domain[v] == Domain::one);
    node.point.assign(form_.size - first_level_, 0.5);
    return node;
  }

  // Tunes diagonal and weights at the root. A diagonal's entry matters as y(1 - y) at the relaxed minimum, the budgets
  // by their duals for the tangent there; the minimum moves with both, hence the rounds and the averaging.
  void prepare() {
    std::vector<double> gain(form_.size), importance(form_.size, 0.2);
    for (int v = 0; v < form_.size; ++v) gain[v] = form_.at(v, v);
    // Deciding what weighs most first moves the bounds most: measured, a third of the nodes of other orders.
    const std::vector<int> order = branching_order(form_, gain);
    std::vector<double> weights = budget_weights(problem_, form_, gain);
    for (int round = 0; round < kTuningRounds; ++round) {
      const Relaxation relaxation(reorder(form_, order, weights), permuted(importance, order), first_level_, false);
      Node node = root(relaxation.ordered());
      for (int repeat = 0; repeat < 5; ++repeat) relaxation.bound(node, std::numeric_limits<double>::infinity());
      for (int i = first_level_; i < form_.size; ++i) {
        const double y = node.point[i - first_level_];
        importance[order[i]] = 0.6 * importance[order[i]] + 0.4 * std::max(0.02, y * (1 - y));
      }
      if (form_.budgets > 1) weights = budget_weights(problem_, form_, tangent_gains(relaxation, node, order));
    }
    relaxation_.emplace(reorder(form_, order, weights), permuted(importance, order), first_level_, true);
    sum_suffixes();
  }

  // The gradient of the relaxed loss at a node's point, by variable of the form.
  std::vector<double> tangent_gains(const Relaxation& relaxation, const Node& node,
                                    const std::vector<int>& order) const {
    const BinaryForm& form = relaxation.ordered().form;
    const std::span<const double> shift = relaxation.shift(node.level);
    std::vector<double> y(node.fixed.begin(), node.fixed.end());
    y.insert(y.end(), node.point.begin(), node.point.end());
    std::vector<double> gain(form.size, 0.0);
    for (int v = 0; v < form.size; ++v) {
      double& slope = gain[order[v]];
      for (int u = 0; u < form.size; ++u) slope += 2 * form.at(v, u) * y[u];
      if (v >= node.level) slope += shift[v - node.level] * (1 - 2 * y[v]);
    }
    return gain;
  }

  static std::vector<double> permuted(const std::vector<double>& values, const std::vector<int>& order) {
    std::vector<double> result;
    for (int v : order) result.push_back(values[v]);
    return result;
  }

  const BinaryForm& ordered() const { return relaxation_->ordered().form; }

  // What the variables from a level on can free at most, a budget; `whole` and members both counted.
  void sum_suffixes() {
    const int n = form_.size;
    most_left_.assign(std::size_t(form_.budgets) * (n + 1), 0.0);
    for (int d = 0; d < form_.budgets; ++d) {
      for (int v = n - 1; v >= 0; --v) {
        most_left_[d * (n + 1) + v] = most_left_[d * (n + 1) + v + 1] + ordered().cost_of(d, v);
      }
    }
  }

  void grow() {
    Node node = root(relaxation_->ordered());
    visit(std::move(node), -std::numeric_limits<double>::infinity());
    while (!open_.empty()) {
      const Open next = open_.top();
      if (next.bound >= cutoff()) break;  // and so has every other
      if (best_.nodes >= max_nodes_) {
        best_.bound = std::min(best_.loss, next.bound);
        best_.proven = false;
        return;
      }
      open_.pop();
      branch(load(next), next.bound);
    }
    best_.bound = best_.loss;
  }

  void branch(const Node& node, double bound) {
    for (int value : {0, 1}) {
      if (!is_allowed(node, value)) continue;
      Node child;
      child.level = node.level + 1;
      child.fixed = node.fixed;
      child.fixed.push_back(static_cast<std::uint8_t>(value));
      child.point.assign(node.point.begin() + 1, node.point.end());
      visit(std::move(child), bound);
    }
  }

  // Bounds a node and keeps it where it may lead to something better.
  void visit(Node node, double parent_bound) {
    while (node.level < form_.size && is_allowed(node, 0) != is_allowed(node, 1)) {
      node.fixed.push_back(is_allowed(node, 1));
      node.point.erase(node.point.begin());
      ++node.level;
    }
    if (!can_meet_budgets(node)) return;
    ++best_.nodes;
    if (node.level == form_.size) {
      consider(node.fixed);
      return;
    }
    const NodeBound found = relaxation_->bound(node, cutoff());
    if (!found.vertex.empty()) {
      std::vector<std::uint8_t> y = node.fixed;
      y.insert(y.end(), found.vertex.begin(), found.vertex.end());
      consider(y);
    }
    const double bound = std::max(parent_bound, found.bound);
    if (bound < cutoff()) store(node, bound);
  }

  // Never both forbidden: members that must go come before those that may stay, and of those one always may.
  bool is_allowed(const Node& node, int value) const {
    const int v = node.level;
    const int group = ordered().group[v];
    if (group < 0 || ordered().item[v] < 0) return true;
    const VariableGroup& variables = ordered().groups[group];
    if (node.fixed[variables.whole]) return value == 0;
    if (ordered().domain[v] == Domain::unless_whole) return value == 1;
    if (value == 0) return true;
    return std::any_of(variables.members.begin(), variables.members.end(),
                       [&](int member) { return member > v || (member < v && !node.fixed[member]); });
  }

  bool can_meet_budgets(const Node& node) const {
    for (int d = 0; d < form_.budgets; ++d) {
      double most = most_left_[d * (form_.size + 1) + node.level];
      for (int v = 0; v < node.level; ++v) most += node.fixed[v] ? ordered().cost_of(d, v) : 0.0;
      if (most < form_.need[d] * (1 - 1e-12)) return false;
    }
    return true;
  }

  void consider(const std::vector<std::uint8_t>& y) {
    if (!ordered().is_feasible(y)) return;
    if (ordered().loss(y) >= cutoff()) return;
    const Mask better = improve(form_, ordered().removed(y));
    best_.y = form_.variables(better);
    best_.loss = form_.loss(best_.y);
  }

  // Points are only where a descent starts, so a byte a variable will do.
  void store(const Node& node, double bound) {
    std::uint32_t slot = static_cast<std::uint32_t>(pool_.size() / form_.size);
    if (free_slots_.empty()) {
      pool_.resize(pool_.size() + form_.size);
    } else {
      slot = free_slots_.back();
      free_slots_.pop_back();
    }
    std::uint8_t* bytes = pool_.data() + std::size_t(slot) * form_.size;
    std::copy(node.fixed.begin(), node.fixed.end(), bytes);
    for (std::size_t i = 0; i < node.point.size(); ++i) {
      bytes[node.level + i] = static_cast<std::uint8_t>(std::lround(255 * node.point[i]));
    }
    open_.push({bound, node.level, slot, created_++});
  }

  Node load(const Open& open) {
    const std::uint8_t* bytes = pool_.data() + std::size_t(open.slot) * form_.size;
    Node node;
    node.level = open.level;
    node.fixed.assign(bytes, bytes + open.level);
    for (int i = open.level; i < form_.size; ++i) node.point.push_back(bytes[i] / 255.0);
    free_slots_.push_back(open.slot);
    return node;
  }

  const Problem& problem_;
  const BinaryForm& form_;
  std::int64_t max_nodes_;
  int first_level_ = 0;  // variables that are fixed from the start
  double scale_ = 0;
  TreeResult best_;
  std::optional<Relaxation> relaxation_;
  std::vector<double> most_left_;  // [budgets, size + 1]
  std::priority_queue<Open> open_;
  std::vector<std::uint8_t> pool_;
  std::vector<std::uint32_t> free_slots_;
  std::uint64_t created_ = 0;
};

}  // namespace

TreeResult branch_and_bound(const Problem& problem, const BinaryForm& form, std::vector<std::uint8_t> start,
                            std::int64_t max_nodes) {
  return Tree(problem, form, std::move(start), max_nodes).run();
}

}  // namespace laptopdiff::pruning
