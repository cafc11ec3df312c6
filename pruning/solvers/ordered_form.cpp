#include "pruning/solvers/ordered_form.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace laptopdiff::pruning {

std::vector<int> branching_order(const BinaryForm& form, std::span<const double> urgency) {
  std::vector<int> order(form.size);
  std::iota(order.begin(), order.end(), 0);
  const auto rank = [&](int v) {
    const bool whole = form.item[v] < 0;
    switch (form.domain[v]) {
      case Domain::zero:
      case Domain::one: return whole ? 0 : 1;
      case Domain::unless_whole: return 3;
      case Domain::free: return whole ? 2 : 4;
    }
    return 4;
  };
  std::sort(order.begin(), order.end(), [&](int a, int b) {
    if (rank(a) != rank(b)) return rank(a) < rank(b);
    if (urgency[a] != urgency[b]) return urgency[a] > urgency[b];
    return a < b;
  });
  return order;
}

OrderedForm reorder(const BinaryForm& form, const std::vector<int>& order, std::span<const double> weights) {
  OrderedForm result;
  result.form = form;
  const std::size_t n = order.size();
  std::vector<int> place(n);
  for (std::size_t i = 0; i < n; ++i) place[order[i]] = static_cast<int>(i);
  for (std::size_t i = 0; i < n; ++i) {
    result.form.domain[i] = form.domain[order[i]];
    result.form.item[i] = form.item[order[i]];
    result.form.group[i] = form.group[order[i]];
    for (std::size_t j = 0; j < n; ++j) result.form.q[i * n + j] = form.at(order[i], order[j]);
    double cost = 0;
    for (int d = 0; d < form.budgets; ++d) {
      result.form.cost[d * n + i] = form.cost_of(d, order[i]);
      cost += weights[d] * form.cost_of(d, order[i]);
    }
    result.cost.push_back(cost);
    result.most_loss = std::max(result.most_loss, std::abs(form.at(order[i], order[i])));
  }
  for (VariableGroup& group : result.form.groups) {
    group.whole = place[group.whole];
    for (int& member : group.members) member = place[member];
  }
  for (int d = 0; d < form.budgets; ++d) result.need += weights[d] * form.need[d];
  return result;
}

}  // namespace laptopdiff::pruning
