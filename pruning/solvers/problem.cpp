#include "pruning/solvers/problem.h"

#include <algorithm>
#include <cmath>
#include <functional>

#include "runtime/error.h"

namespace laptopdiff::pruning {

using runtime::cat;
using runtime::input_error;
using runtime::non_finite_error;
using runtime::usage_error;

namespace {

void for_each_item(const Problem& problem, const std::function<void(const Item&)>& visit) {
  for (const Item& item : problem.items) visit(item);
  for (const Group& group : problem.groups) {
    if (group.all) visit(*group.all);
  }
}

void check_size(double value, const std::string& what) {
  if (std::abs(value) > kLargest)
    throw input_error("solve: ", what, " is ", value, ", expected at most ", kLargest, " in magnitude");
}

void validate_item(const Problem& problem, const Item& item) {
  if (!std::isfinite(item.gain)) {
    throw non_finite_error("solve: the score of `", item.name, "` is ", item.gain,
                           ", expected a finite number; score it again, or give it a finite score and fix it to keep");
  }
  check_size(item.gain, cat("the score of `", item.name, "`"));
  if (item.cost.size() != problem.budgets.size()) {
    throw input_error("solve: `", item.name, "` has ", item.cost.size(), " costs, expected one for each of the ",
                      problem.budgets.size(), " budgets");
  }
  for (std::size_t d = 0; d < item.cost.size(); ++d) {
    if (!std::isfinite(item.cost[d])) {
      throw non_finite_error("solve: the cost of `", item.name, "` in `", problem.budgets[d].name, "` is ",
                             item.cost[d], ", expected a finite number");
    }
    if (item.cost[d] < 0) {
      throw input_error("solve: the cost of `", item.name, "` in `", problem.budgets[d].name, "` is ", item.cost[d],
                        ", expected 0 or more; clamp a measured saving at 0");
    }
    check_size(item.cost[d], cat("the cost of `", item.name, "` in `", problem.budgets[d].name, "`"));
  }
}

void validate_groups(const Problem& problem) {
  std::vector<int> owner(problem.items.size(), -1);
  for (std::size_t g = 0; g < problem.groups.size(); ++g) {
    if (problem.groups[g].members.empty()) throw input_error("solve: group ", g, " has no members");
    for (int member : problem.groups[g].members) {
      if (member < 0 || member >= static_cast<int>(problem.items.size())) {
        throw input_error("solve: group ", g, " names item ", member, ", expected 0 to ", problem.items.size() - 1);
      }
      if (owner[member] >= 0) {
        throw input_error("solve: `", problem.items[member].name, "` is in group ", owner[member], " and in group ", g,
                          ", expected one group at most");
      }
      owner[member] = static_cast<int>(g);
    }
  }
}

void validate_symmetry(const QuadraticForm& form) {
  double scale = 0;
  for (double value : form.values) {
    if (!std::isfinite(value)) throw non_finite_error("solve: the quadratic form holds ", value);
    check_size(value, "an entry of the quadratic form");
    scale = std::max(scale, std::abs(value));
  }
  for (int i = 0; i < form.rows; ++i) {
    for (int j = 0; j < i; ++j) {
      if (std::abs(form.at(i, j) - form.at(j, i)) > 1e-6 * scale) {
        throw input_error("solve: the quadratic form is not symmetric: [", i, ",", j, "] is ", form.at(i, j), ", [", j,
                          ",", i, "] is ", form.at(j, i));
      }
    }
  }
}

void validate_form(const Problem& problem) {
  if (!problem.form) return;
  const QuadraticForm& form = *problem.form;
  if (form.rows < 0 || form.values.size() != static_cast<std::size_t>(form.rows) * form.rows) {
    throw input_error("solve: the quadratic form has ", form.values.size(), " values, expected ", form.rows, " x ",
                      form.rows);
  }
  validate_symmetry(form);
  std::vector<std::string> user(form.rows);
  for_each_item(problem, [&](const Item& item) {
    if (!item.row) return;
    if (*item.row < 0 || *item.row >= form.rows) {
      throw input_error("solve: `", item.name, "` has row ", *item.row, " of the quadratic form, expected 0 to ",
                        form.rows - 1);
    }
    if (!user[*item.row].empty()) {
      throw input_error("solve: `", item.name, "` and `", user[*item.row], "` share row ", *item.row,
                        " of the quadratic form, expected a row each");
    }
    user[*item.row] = item.name;
  });
}

void validate_fixed(const Problem& problem) {
  std::vector<std::optional<Decision>> seen(problem.items.size());
  for (const Fixed& fixed : problem.fixed) {
    if (fixed.item < 0 || fixed.item >= static_cast<int>(problem.items.size())) {
      throw input_error("solve: a fixed choice names item ", fixed.item, ", expected 0 to ",
                        static_cast<int>(problem.items.size()) - 1);
    }
    if (seen[fixed.item] && *seen[fixed.item] != fixed.decision) {
      throw usage_error("solve: `", problem.items[fixed.item].name,
                        "` is to be kept and to be removed; leave one of the two out");
    }
    seen[fixed.item] = fixed.decision;
  }
}

// Costs of `items` under budget d are whole numbers whose sum is exact in double.
bool exact_integers(const Problem& problem, std::size_t d, double sum) {
  bool whole = sum < 9007199254740992.0;
  for_each_item(problem, [&](const Item& item) { whole = whole && item.cost[d] == std::floor(item.cost[d]); });
  return whole;
}

// The most that one group (with an `all`) can free in budget d under the fixed choices.
double most_of_group(const Problem& problem, const Group& group, std::size_t d,
                     const std::vector<std::optional<Decision>>& decision) {
  double sum = 0;
  double cheapest = -1;  // of the members that may be kept
  bool can_empty = true;
  for (int member : group.members) {
    const double cost = problem.items[member].cost[d];
    if (decision[member] == Decision::keep) {
      can_empty = false;
      continue;
    }
    sum += cost;
    if (!decision[member] && (cheapest < 0 || cost < cheapest)) cheapest = cost;
  }
  if (!can_empty || !group.all) return sum;
  return cheapest < 0 ? group.all->cost[d] : std::max(group.all->cost[d], sum - cheapest);
}

double most_freed(const Problem& problem, std::size_t d) {
  const auto decision = decisions(problem);
  std::vector<bool> grouped(problem.items.size(), false);
  double most = 0;
  for (const Group& group : problem.groups) {
    for (int member : group.members) grouped[member] = true;
    most += most_of_group(problem, group, d, decision);
  }
  for (std::size_t i = 0; i < problem.items.size(); ++i) {
    if (!grouped[i] && decision[i] != Decision::keep) most += problem.items[i].cost[d];
  }
  return most;
}

// "; the least share that can be kept is 0.1234", rounded up so that asking for it works.
std::string nearest_share(const Budget& budget, double most) {
  if (!(budget.total > 0)) return cat("; ask for ", most, " at most");
  const double share = std::ceil((1 - most / budget.total) * 1e4 - 1e-9) / 1e4;
  return cat(" of ", budget.total, "; the least share that can be kept is ", budget.name, "=", share);
}

bool emptied(const Group& group, const Mask& removed) {
  return group.all && std::all_of(group.members.begin(), group.members.end(), [&](int i) { return removed[i] != 0; });
}

// Visits what counts in a choice: removed items, and `all` instead of the members of an emptied group.
template <typename Visit>
void for_each_removed(const Problem& problem, const Mask& removed, const Visit& visit) {
  Mask counted = removed;
  for (const Group& group : problem.groups) {
    if (!emptied(group, removed)) continue;
    for (int member : group.members) counted[member] = 0;
  }
  for (std::size_t i = 0; i < problem.items.size(); ++i) {
    if (counted[i]) visit(problem.items[i]);
  }
  for (const Group& group : problem.groups) {
    if (emptied(group, removed)) visit(*group.all);
  }
}

}  // namespace

void validate(const Problem& problem) {
  for (const Budget& budget : problem.budgets) {
    if (!std::isfinite(budget.must_free) || !std::isfinite(budget.total)) {
      throw non_finite_error("solve: budget `", budget.name, "` asks for ", budget.must_free, " of ", budget.total);
    }
  }
  validate_groups(problem);
  for_each_item(problem, [&](const Item& item) { validate_item(problem, item); });
  validate_form(problem);
  validate_fixed(problem);
}

std::vector<std::optional<Decision>> decisions(const Problem& problem) {
  std::vector<std::optional<Decision>> result(problem.items.size());
  for (const Fixed& fixed : problem.fixed) result[fixed.item] = fixed.decision;
  return result;
}

std::vector<double> requirements(const Problem& problem) {
  std::vector<double> result;
  for (std::size_t d = 0; d < problem.budgets.size(); ++d) {
    double sum = 0;
    for_each_item(problem, [&](const Item& item) { sum += item.cost[d]; });
    double need = problem.budgets[d].must_free;
    if (exact_integers(problem, d, sum)) {
      need = std::ceil(need - std::min(0.25, 1e-12 * sum));
    } else {
      need -= 1e-12 * sum;
    }
    result.push_back(std::max(0.0, need));
  }
  return result;
}

bool reachable(const Problem& problem) {
  const std::vector<double> need = requirements(problem);
  for (std::size_t d = 0; d < need.size(); ++d) {
    if (most_freed(problem, d) < need[d]) return false;
  }
  return true;
}

void check_reachable(const Problem& problem) {
  const std::vector<double> need = requirements(problem);
  std::vector<std::string> lines;
  for (std::size_t d = 0; d < need.size(); ++d) {
    const double most = most_freed(problem, d);
    if (most >= need[d]) continue;
    const Budget& budget = problem.budgets[d];
    lines.push_back(cat("budget `", budget.name, "` needs ", budget.must_free, " to be removed, but at most ", most,
                        " can be", nearest_share(budget, most)));
  }
  if (lines.empty()) return;
  const std::string fixed =
      problem.fixed.empty() ? "" : cat(" (", problem.fixed.size(), " layers are fixed; fix fewer to reach further)");
  throw usage_error("solve: ", runtime::join(lines, "; "), fixed);
}

void throw_jointly_impossible(const Problem& problem) {
  std::vector<std::string> names;
  for (std::size_t d = 0; d < problem.budgets.size(); ++d) {
    names.push_back(cat("`", problem.budgets[d].name, "` (at most ", most_freed(problem, d), " can be removed, ",
                        problem.budgets[d].must_free, " are asked for)"));
  }
  throw usage_error("solve: each budget can be met alone, but no choice meets all of them: ", runtime::join(names),
                    "; relax one of them");
}

std::vector<double> freed_by(const Problem& problem, const Mask& removed) {
  std::vector<double> freed(problem.budgets.size(), 0.0);
  for_each_removed(problem, removed, [&](const Item& item) {
    for (std::size_t d = 0; d < freed.size(); ++d) freed[d] += item.cost[d];
  });
  return freed;
}

bool meets(const Problem& problem, const Mask& removed) {
  const std::vector<double> freed = freed_by(problem, removed);
  const std::vector<double> need = requirements(problem);
  for (std::size_t d = 0; d < need.size(); ++d) {
    if (freed[d] < need[d]) return false;
  }
  return true;
}

double share_met(const std::vector<double>& freed, const std::vector<double>& need) {
  double share = 0;
  for (std::size_t d = 0; d < need.size(); ++d) {
    if (need[d] > 0) share += std::min(freed[d], need[d]) / need[d];
  }
  return share;
}

double linear_loss(const Problem& problem, const Mask& removed) {
  double loss = 0;
  for_each_removed(problem, removed, [&](const Item& item) { loss += item.gain; });
  return loss;
}

double quadratic_loss(const Problem& problem, const Mask& removed) {
  std::vector<int> rows;
  double loss = 0;
  for_each_removed(problem, removed, [&](const Item& item) {
    if (problem.form && item.row) {
      rows.push_back(*item.row);
    } else {
      loss += item.gain;
    }
  });
  for (int i : rows) {
    for (int j : rows) loss += problem.form->at(i, j);
  }
  return loss;
}

}  // namespace laptopdiff::pruning
