#include "pruning/solvers/relaxation.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "pruning/solvers/diagonal_shift.h"

namespace laptopdiff::pruning {

namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();
constexpr int kRounds = 4;

// The relaxed problem of one node: descent steps on the convex function, and the exact minimum of its tangent planes.
// Indices run over the variables that are left, [0, m).
class NodeProblem {
 public:
  NodeProblem(const OrderedForm& ordered, std::span<const double> shift, Node& node)
      : o_(ordered), shift_(shift), node_(node), k_(node.level), m_(ordered.form.size - node.level), y_(node.point) {
    cost_ = std::span<const double>(o_.cost).subspan(k_);
    read_prefix();
    sort_variables();
    settle_start();
    differentiate();
  }

  NodeBound bound(double cutoff) {
    NodeBound result;
    result.bound = -kInfinity;
    for (int round = 0; round < kRounds; ++round) {
      move_costless();
      move_pairs(cutoff);
      const double tangent = tangent_minimum();
      result.bound = std::max(result.bound, tangent);
      if (result.bound >= cutoff) break;
      // The function's value here is above the relaxed minimum: below the cutoff, no bound can reach it.
      if (round > 0 && slack_ >= -tolerance_ && value_ < cutoff) break;
      move_to_target();
    }
    if (result.bound < kInfinity) result.vertex = high_.y;
    return result;
  }

 private:
  struct Vertex {
    std::vector<std::uint8_t> y;
    double slope = 0;  // gradient . y
    double cost = 0;
  };

  struct OpenGroup {  // its `whole` is not fixed yet
    int whole;
    std::vector<int> members;  // free ones
    std::vector<int> musts;    // ones unless `whole`
    bool can_fill;             // nothing keeps all members from being ones, so it must be ruled out
  };

  double q(int i, int j) const { return o_.form.at(k_ + i, k_ + j); }
  double curvature(int i) const { return q(i, i) - shift_[i]; }

  void read_prefix() {
    const BinaryForm& form = o_.form;
    linear_.assign(m_, 0.0);
    need_ = o_.need;
    constant_ = 0;
    for (int j = 0; j < k_; ++j) {
      if (!node_.fixed[j]) continue;
      need_ -= o_.cost[j];
      constant_ += form.at(j, j);
      for (int i = 0; i < j; ++i) constant_ += node_.fixed[i] ? 2 * form.at(i, j) : 0.0;
      const double* row = form.q.data() + std::size_t(j) * form.size + k_;
      for (int i = 0; i < m_; ++i) linear_[i] += 2 * row[i];
    }
    for (int i = 0; i < m_; ++i) linear_[i] += shift_[i];
    double largest = 0;
    for (double cost : cost_) largest = std::max(largest, cost);
    tolerance_ = 1e-10 * (std::abs(o_.need) + largest);
  }

  bool is_open(int group) const { return o_.form.groups[group].whole >= k_; }

  // What each variable may do: stay fixed, move on its own, or belong to an open group.
  void sort_variables() {
    const BinaryForm& form = o_.form;
    state_.assign(m_, State::fixed);
    for (int i = 0; i < m_; ++i) {
      const int v = k_ + i;
      if (form.group[v] >= 0 && is_open(form.group[v])) {
        state_[i] = form.item[v] < 0 ? State::whole : State::member;
      } else if (form.domain[v] == Domain::free &&
                 !(form.group[v] >= 0 && node_.fixed[form.groups[form.group[v]].whole])) {
        state_[i] = State::lone;
        lone_.push_back(i);
      }
      if (state_[i] == State::member && form.domain[v] != Domain::free) state_[i] = State::fixed;
    }
    for (const VariableGroup& group : form.groups) {
      if (group.whole >= k_) {
        add_open_group(group);
      } else if (!node_.fixed[group.whole]) {
        add_unfillable(group);
      }
    }
  }

  bool is_zero(int v) const { return v < k_ ? !node_.fixed[v] : o_.form.domain[v] == Domain::zero; }

  void add_open_group(const VariableGroup& group) {
    OpenGroup open{group.whole - k_, {}, {}, true};
    for (int v : group.members) {
      if (is_zero(v)) {
        open.can_fill = false;
      } else {
        (o_.form.domain[v] == Domain::unless_whole ? open.musts : open.members).push_back(v - k_);
      }
    }
    open_.push_back(std::move(open));
  }

  // `whole` is zero, so not all members may be ones.
  void add_unfillable(const VariableGroup& group) {
    std::vector<int> left;
    for (int v : group.members) {
      if (is_zero(v)) return;
      if (v >= k_ && o_.form.domain[v] == Domain::free) left.push_back(v - k_);
    }
    unfillable_.push_back(std::move(left));
  }

  void settle_start() {
    for (int i = 0; i < m_; ++i) {
      y_[i] = std::clamp(y_[i], 0.0, 1.0);
      if (state_[i] == State::fixed) y_[i] = fixed_value(i);
    }
    for (const OpenGroup& group : open_) {
      for (int i : group.members) y_[i] = std::min(y_[i], 1 - y_[group.whole]);
      for (int i : group.musts) y_[i] = 1 - y_[group.whole];
    }
  }

  double fixed_value(int i) const {
    const int v = k_ + i;
    if (o_.form.domain[v] == Domain::one) return 1;
    if (o_.form.domain[v] != Domain::unless_whole) return 0;
    const int whole = o_.form.groups[o_.form.group[v]].whole;
    return whole < k_ && node_.fixed[whole] ? 0 : 1;
  }

  void differentiate() {
    gradient_.assign(linear_.begin(), linear_.end());
    value_ = constant_;
    slack_ = -need_;
    for (int j = 0; j < m_; ++j) {
      value_ += linear_[j] * y_[j];
      slack_ += cost_[j] * y_[j];
      if (y_[j] == 0) continue;
      const double* row = o_.form.q.data() + std::size_t(k_ + j) * o_.form.size + k_;
      for (int i = 0; i < m_; ++i) gradient_[i] += 2 * y_[j] * row[i];
      gradient_[j] -= 2 * shift_[j] * y_[j];
    }
    for (int i = 0; i < m_; ++i) value_ += 0.5 * (gradient_[i] - linear_[i]) * y_[i];
  }

  double cap(int i) const {
    if (state_[i] == State::lone) return 1;
    if (state_[i] != State::member) return y_[i];
    return 1 - y_[o_.form.groups[o_.form.group[k_ + i]].whole - k_];
  }

  // y_i += by, with the gradient; the value is the caller's.
  void shift_variable(int i, double by) {
    y_[i] = std::clamp(y_[i] + by, 0.0, 1.0);
    const double* row = o_.form.q.data() + std::size_t(k_ + i) * o_.form.size + k_;
    for (int j = 0; j < m_; ++j) gradient_[j] += 2 * by * row[j];
    gradient_[i] -= 2 * by * shift_[i];
    slack_ += by * cost_[i];
  }

  // Coordinate descent on what frees nothing.
  void move_costless() {
    for (int i = 0; i < m_; ++i) {
      if (cost_[i] > 0 || (state_[i] != State::lone && state_[i] != State::member)) continue;
      const double bend = std::max(curvature(i), 1e-300);
      const double by = std::clamp(y_[i] - gradient_[i] / (2 * bend), 0.0, cap(i)) - y_[i];
      value_ += by * (gradient_[i] + by * curvature(i));
      shift_variable(i, by);
    }
  }

  // Sequential minimal optimisation: the pair whose exchange at constant cost lowers the function fastest, again and
  // again. The budget's slack takes part as one more variable, of gradient 0.
  void move_pairs(double cutoff) {
    const double enough = 1e-5 * std::min(std::abs(cutoff), o_.most_loss);
    for (int step = 0; step < 3 * m_; ++step) {
      int up = -1, down = -1;
      double up_rate = kInfinity, down_rate = 0;
      find_pair(up, up_rate, down, down_rate);
      if (slack_ < -tolerance_) {
        if (up < 0) return;
        const double by = std::min(cap(up) - y_[up], -slack_ / cost_[up]);
        value_ += by * (gradient_[up] + by * curvature(up));
        shift_variable(up, by);
        continue;
      }
      if (slack_ > tolerance_ && up_rate > 0) {
        up = -1;
        up_rate = 0;
      }
      if (down_rate - up_rate <= 0 || (up < 0 && down < 0)) return;
      if (exchange(up, down, down_rate - up_rate) < enough) return;
    }
  }

  void find_pair(int& up, double& up_rate, int& down, double& down_rate) const {
    for (int i = 0; i < m_; ++i) {
      if (!(cost_[i] > 0) || (state_[i] != State::lone && state_[i] != State::member)) continue;
      const double rate = gradient_[i] / cost_[i];
      if (rate < up_rate && y_[i] < cap(i) - 1e-12) {
        up = i;
        up_rate = rate;
      }
      if (rate > down_rate && y_[i] > 1e-12) {
        down = i;
        down_rate = rate;
      }
    }
  }

  // Raises `up` and lowers `down` (-1: the slack) by the same cost; returns by how much the function falls.
  double exchange(int up, int down, double rate) {
    double bend = 0;
    double longest = kInfinity;
    if (up >= 0) {
      bend += curvature(up) / (cost_[up] * cost_[up]);
      longest = std::min(longest, (cap(up) - y_[up]) * cost_[up]);
    } else {
      longest = std::min(longest, slack_);
    }
    if (down >= 0) {
      bend += curvature(down) / (cost_[down] * cost_[down]);
      longest = std::min(longest, y_[down] * cost_[down]);
    }
    if (up >= 0 && down >= 0) bend -= 2 * q(up, down) / (cost_[up] * cost_[down]);
    const double length = bend > 0 ? std::min(longest, rate / (2 * bend)) : longest;
    if (up >= 0) shift_variable(up, length / cost_[up]);
    if (down >= 0) shift_variable(down, -length / cost_[down]);
    const double fall = length * (rate - bend * length);
    value_ -= fall;
    return fall;
  }

  // The least value of the tangent plane at y over 0/1 choices in which only the budget is relaxed: the upper
  // envelope of its Lagrangian, walked along the lower hull of (cost, slope).
  double tangent_minimum() {
    const double base = value_ - std::inner_product(gradient_.begin(), gradient_.end(), y_.begin(), 0.0);
    Vertex low = best_vertex(1, 0);
    if (low.cost >= need_) {
      high_ = low;
      target_.assign(low.y.begin(), low.y.end());
      return base + low.slope;
    }
    high_ = best_vertex(0, 1);
    if (high_.cost < need_ - tolerance_) return kInfinity;
    double best = -kInfinity;
    for (int step = 0; step < 60 && high_.cost > low.cost; ++step) {
      const double price = std::max(0.0, (high_.slope - low.slope) / (high_.cost - low.cost));
      Vertex next = best_vertex(1, price);
      const double value = next.slope - price * next.cost;
      best = std::max(best, base + price * need_ + value);
      const double line = low.slope - price * low.cost;
      if (value >= line - 1e-12 * (std::abs(line) + o_.most_loss)) break;
      (next.cost >= need_ ? high_ : low) = std::move(next);
    }
    if (best == -kInfinity) best = base + low.slope;
    mix(low);
    return best;
  }

  void mix(const Vertex& low) {
    const double span = high_.cost - low.cost;
    const double share = span > 0 ? std::clamp((need_ - low.cost) / span, 0.0, 1.0) : 1.0;
    target_.resize(m_);
    for (int i = 0; i < m_; ++i) target_[i] = share * high_.y[i] + (1 - share) * low.y[i];
  }

  // Minimises slope_weight * gradient.y - price * cost.y.
  Vertex best_vertex(double slope_weight, double price) {
    rate_.resize(m_);
    Vertex vertex;
    vertex.y.resize(m_);
    for (int i = 0; i < m_; ++i) {
      rate_[i] = slope_weight * gradient_[i] - price * cost_[i];
      vertex.y[i] = state_[i] == State::fixed ? y_[i] > 0.5 : 0;
    }
    for (int i : lone_) vertex.y[i] = rate_[i] < 0;
    for (const auto& members : unfillable_) leave_one(members, vertex.y);
    for (const OpenGroup& group : open_) choose_group(group, vertex.y);
    for (int i = 0; i < m_; ++i) {
      if (!vertex.y[i]) continue;
      vertex.slope += gradient_[i];
      vertex.cost += cost_[i];
    }
    return vertex;
  }

  // Takes out the member that gains least where all of them are ones.
  void leave_one(const std::vector<int>& members, std::vector<std::uint8_t>& y) const {
    int least = -1;
    for (int i : members) {
      if (!y[i]) return;
      if (least < 0 || rate_[i] > rate_[least]) least = i;
    }
    if (least >= 0) y[least] = 0;
  }

  void choose_group(const OpenGroup& group, std::vector<std::uint8_t>& y) const {
    for (int i : group.members) y[i] = rate_[i] < 0;
    if (group.can_fill) leave_one(group.members, y);
    double apart = 0;
    for (int i : group.musts) apart += rate_[i];
    for (int i : group.members) apart += y[i] ? rate_[i] : 0.0;
    const bool whole = rate_[group.whole] < apart;
    y[group.whole] = whole;
    for (int i : group.musts) y[i] = !whole;
    for (int i : group.members) y[i] = y[i] && !whole;
  }

  // A Frank-Wolfe step: the best point on the way to where the tangent is least. It moves what pairs cannot: `whole`
  // variables, and a point that does not meet the budget.
  void move_to_target() {
    double slope = 0, bend = 0;
    std::vector<double> way(m_);
    for (int i = 0; i < m_; ++i) {
      way[i] = target_[i] - y_[i];
      slope += gradient_[i] * way[i];
    }
    for (int i = 0; i < m_; ++i) {
      if (way[i] == 0) continue;
      double row = -shift_[i] * way[i];
      for (int j = 0; j < m_; ++j) row += q(i, j) * way[j];
      bend += way[i] * row;
    }
    double length = slope >= 0 ? 0.0 : (bend > 0 ? std::min(1.0, -slope / (2 * bend)) : 1.0);
    if (slack_ < -tolerance_) length = 1;
    if (length == 0) return;
    for (int i = 0; i < m_; ++i) y_[i] += length * way[i];
    differentiate();
  }

  enum class State : std::uint8_t { fixed, lone, member, whole };

  const OrderedForm& o_;
  std::span<const double> shift_;
  Node& node_;
  int k_, m_;
  std::vector<double>& y_;
  std::span<const double> cost_;
  std::vector<double> linear_, gradient_, rate_, target_;
  double constant_ = 0, need_ = 0, value_ = 0, slack_ = 0, tolerance_ = 0;
  std::vector<State> state_;
  std::vector<int> lone_;
  std::vector<OpenGroup> open_;
  std::vector<std::vector<int>> unfillable_;  // free members, not all of which may be ones
  Vertex high_;                               // meets the budget
};

}  // namespace

Relaxation::Relaxation(OrderedForm ordered, std::span<const double> importance, int first_level, bool every_level)
    : ordered_(std::move(ordered)), first_level_(first_level) {
  const int n = ordered_.form.size;
  std::vector<double> start;
  for (int level = first_level; level < (every_level ? n : std::min(n, first_level + 1)); ++level) {
    const std::size_t corner = std::size_t(level) * n + level;
    shifts_.push_back(largest_shift(std::span<const double>(ordered_.form.q).subspan(corner), n - level, n,
                                    importance.subspan(level), start));
    start.assign(shifts_.back().begin() + 1, shifts_.back().end());
  }
}

std::span<const double> Relaxation::shift(int level) const {
  const int known = std::min(level - first_level_, static_cast<int>(shifts_.size()) - 1);
  return std::span<const double>(shifts_[known]).subspan(level - first_level_ - known);
}

NodeBound Relaxation::bound(Node& node, double cutoff) const {
  return NodeProblem(ordered_, shift(node.level), node).bound(cutoff);
}

}  // namespace laptopdiff::pruning
