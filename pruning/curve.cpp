#include "pruning/curve.h"

#include <algorithm>
#include <cmath>

#include "pruning/solvers/knapsack.h"
#include "runtime/error.h"

namespace laptopdiff::pruning {
namespace {

constexpr const char* kFormat = "laptopdiff.curve/1";
constexpr double kQuantumShare = 1e-4;

const Budget& only_budget(const Problem& problem) {
  if (problem.budgets.size() != 1 || !(problem.budgets.front().total > 0))
    throw runtime::usage_error("solve: a curve is over one budget, ", problem.budgets.size(), " are given");
  return problem.budgets.front();
}

bool whole_costs(const Problem& problem) {
  const auto whole = [](const Item& item) { return item.cost[0] == std::floor(item.cost[0]); };
  return std::all_of(problem.items.begin(), problem.items.end(), whole) &&
         std::all_of(problem.groups.begin(), problem.groups.end(),
                     [&](const Group& group) { return !group.all || whole(*group.all); });
}

}  // namespace

Curve knapsack_curve_points(const Problem& problem) {
  const Budget& budget = only_budget(problem);
  CurveOptions options;
  if (!whole_costs(problem)) options.quantum = kQuantumShare * budget.total;
  const KnapsackCurve exact = knapsack_curve(problem, options);
  Curve curve;
  curve.choices = exact.size();
  const auto add = [&](std::size_t i) {
    curve.points.push_back({1 - exact.freed(i) / budget.total, exact.loss(i), exact.removed(i)});
  };
  if (exact.size() <= kMostPoints) {
    for (std::size_t i = 0; i < exact.size(); ++i) add(i);
    return curve;
  }
  std::size_t next = 0;
  const double most = exact.freed(exact.size() - 1);
  for (std::size_t step = 0; step < kMostPoints; ++step) {
    const double target = most * static_cast<double>(step) / (kMostPoints - 1);
    if (next > 0 && exact.freed(next - 1) >= target) continue;  // the last point frees as much already
    std::size_t low = next, high = exact.size() - 1;
    while (low < high) {
      const std::size_t middle = low + (high - low) / 2;
      if (exact.freed(middle) < target) low = middle + 1;
      else high = middle;
    }
    add(low);
    next = low + 1;
    if (next == exact.size()) break;
  }
  return curve;
}

Curve curve_at(const Problem& problem, const std::vector<double>& keep,
               const std::function<Solution(const Problem&)>& solve) {
  const double total = only_budget(problem).total;
  const auto at_share = [&](double share) {
    Problem at = problem;
    at.budgets[0].must_free = (1 - share) * total;
    return at;
  };
  Curve curve;
  for (const double share : keep) {
    const Problem at = at_share(share);
    if (!reachable(at)) {
      curve.unreachable.push_back(share);
      continue;
    }
    const Solution solution = solve(at);
    curve.points.push_back({1 - solution.freed[0] / total, solution.loss, solution.removed});
  }
  if (curve.points.empty() && !curve.unreachable.empty()) check_reachable(at_share(curve.unreachable.front()));
  curve.choices = curve.points.size();
  return curve;
}

runtime::Json curve_json(const Curve& curve, const Problem& problem, const std::string& solver,
                         const std::string& objective) {
  runtime::Json points = runtime::Json::array();
  for (const CurvePoint& point : curve.points) {
    runtime::Json removed = runtime::Json::array();
    for (std::size_t i = 0; i < point.removed.size(); ++i) {
      if (point.removed[i] != 0) removed.push_back(problem.items[i].name);
    }
    points.push_back({{"keep", point.kept}, {"loss", point.loss}, {"removed", removed}});
  }
  return {{"format", kFormat},
          {"resource", only_budget(problem).name},
          {"total", only_budget(problem).total},
          {"solver", solver},
          {"objective", objective},
          {"choices", curve.choices},
          {"points", points}};
}

}  // namespace laptopdiff::pruning
