// The one problem that every solver takes: which items to remove, so that every budget is met at the least loss.
//
// An item is a removable unit. Items stand alone, or sit in a group whose joint removal is worth something else than
// the sum of its members (a Transformer2DModel that loses its last block also loses its shell): then `all` counts
// instead of the members. No solver here knows what a model is.
//
// Words: loss = what the objective predicts for a choice, lower is better; freed = the amount of a budget's resource
// that a choice removes. Solvers keep freed >= must_free in every budget.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace laptopdiff::pruning {

struct Item {
  std::string name;
  double gain = 0;           // predicted loss if this alone is removed; any finite number
  std::vector<double> cost;  // amount freed in every budget, >= 0; integers below 2^53 are added exactly
  std::optional<int> row;    // its row in the quadratic form
};

struct Group {
  std::vector<int> members;  // indices into Problem::items, each of which may be removed alone
  std::optional<Item> all;   // where every member is removed, its gain, cost and row replace those of the members
};

struct Budget {
  std::string name;
  double must_free = 0;  // the least that has to be removed
  double total = 0;      // what the base has; only lets error messages speak in shares, 0 where unknown
};

// The largest magnitude of a gain, a cost or an entry of a form: what is multiplied and squared stays finite.
inline constexpr double kLargest = 1e100;

enum class Decision { keep, remove };

struct Fixed {
  int item = 0;
  Decision decision = Decision::keep;
};

// A symmetric matrix, row-major. A Gram matrix is positive semi-definite, but nothing here relies on it.
struct QuadraticForm {
  int rows = 0;
  std::vector<double> values;
  double at(int i, int j) const { return values[static_cast<std::size_t>(i) * rows + j]; }
};

struct Problem {
  std::vector<Item> items;
  std::vector<Group> groups;  // disjoint; items in none are independent
  std::vector<Budget> budgets;
  std::vector<Fixed> fixed;
  std::optional<QuadraticForm> form;
};

using Mask = std::vector<std::uint8_t>;  // one an item, 1 = removed

struct Solution {
  Mask removed;
  std::vector<double> freed;  // one a budget
  double loss = 0;            // the solver's objective at `removed`
  double bound = 0;           // no feasible choice has a loss below this
  bool proven_optimal = false;
};

// Checks sizes, ranges and signs. Throws input_error (malformed, or beyond kLargest), non_finite_error (a NaN or Inf,
// naming the item), or usage_error (contradictory fixed choices). A unit that could not be scored has to be given a
// finite gain and fixed to keep by the caller: what to do about it is not a solver's business.
void validate(const Problem& problem);

// What each budget's freed amount is compared with: must_free, less a slack for rounding (1e-12 of all costs), and
// rounded up to a whole number where all costs are whole. Never negative.
std::vector<double> requirements(const Problem& problem);

// Whether every budget can be met, each alone.
bool reachable(const Problem& problem);

// Throws usage_error where a budget cannot be met even alone, saying what can be reached at most.
void check_reachable(const Problem& problem);

std::vector<double> freed_by(const Problem& problem, const Mask& removed);
bool meets(const Problem& problem, const Mask& removed);

// The share of every need that `freed` meets, summed over budgets: what a removal is worth to a greedy search.
double share_met(const std::vector<double>& freed, const std::vector<double>& need);

// Sum of gains, `all` replacing the members of an emptied group.
double linear_loss(const Problem& problem, const Mask& removed);

// x'Qx over the rows of what is removed, plus the gains of removed items that have no row.
double quadratic_loss(const Problem& problem, const Mask& removed);

// std::nullopt where an item is free, else what it is fixed to.
std::vector<std::optional<Decision>> decisions(const Problem& problem);

// The error for budgets that can each be met, but not together.
[[noreturn]] void throw_jointly_impossible(const Problem& problem);

}  // namespace laptopdiff::pruning
