// A problem with a quadratic loss, in independent 0/1 variables: minimise y'Qy with every budget met.
//
// A group with an `all` becomes one variable for `all` and one for each member, at most one of the two kinds set: a
// member's variable says "removed while the group is not emptied". So emptying a group swaps k ones for one, and loss
// and freed amounts are plain sums again. Gains of items without a row sit on the diagonal (y*y = y).
#pragma once

#include <span>
#include <vector>

#include "pruning/solvers/problem.h"

namespace laptopdiff::pruning {

struct VariableGroup {
  int source = 0;            // index into Problem::groups
  int whole = 0;             // the variable of `all`
  std::vector<int> members;  // the variables of its members
};

enum class Domain : std::uint8_t {
  free,
  zero,
  one,
  unless_whole,  // a member that must go: one, unless its group's `whole` is
};

struct BinaryForm {
  int size = 0;
  int budgets = 0;
  std::vector<double> q;       // [size, size], symmetric
  std::vector<double> cost;    // [budgets, size]
  std::vector<double> need;    // [budgets]
  std::vector<Domain> domain;  // [size]
  std::vector<int> item;       // [size] the item, -1 for a `whole`
  std::vector<int> group;      // [size] index into groups, -1 for a lone item
  std::vector<VariableGroup> groups;
  int items = 0;

  double at(int i, int j) const { return q[static_cast<std::size_t>(i) * size + j]; }
  double cost_of(int budget, int variable) const { return cost[static_cast<std::size_t>(budget) * size + variable]; }
  double loss(std::span<const std::uint8_t> y) const;
  bool is_feasible(std::span<const std::uint8_t> y) const;  // budgets only
  Mask removed(std::span<const std::uint8_t> y) const;
  std::vector<std::uint8_t> variables(const Mask& removed) const;
};

// A group whose `all` is out of reach (a member is to be kept) is dissolved: its members become lone items.
BinaryForm make_binary_form(const Problem& problem);

}  // namespace laptopdiff::pruning
