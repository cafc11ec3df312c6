// Exact minimum of the sum of gains under the budgets, and the whole curve of best choices over one budget.
//
// The additive model of one-shot layer pruning: a set's loss is the sum of its layers' losses, so choosing layers is a
// 0/1 knapsack, here with groups and several budgets. Solved by dominance fronts (front.h) with bounds from the linear
// relaxation. The answer is exact or there is none: where a front outgrows `max_states`, resource_error is thrown.
// Ties go to fewer removed items, then to the mask that keeps the earlier item.
#pragma once

#include <cstddef>
#include <memory>

#include "pruning/solvers/problem.h"

namespace laptopdiff::pruning {

struct KnapsackOptions {
  std::size_t max_states = 5'000'000;  // partial choices held at once; about 40 bytes each for one budget
};

// Throws as validate(); usage_error for impossible budgets; resource_error for a front that outgrows max_states.
Solution solve_knapsack(const Problem& problem, const KnapsackOptions& options = {});

struct CurveOptions {
  // Parameters are multiples of 320 in the Stable Diffusion family, so SDXL's curve has 7.8 million points at worst.
  std::size_t max_states = 8'000'000;
  // Costs are rounded down to a multiple of this before they are added, which keeps the front short where they are
  // measured times. The curve is then the best of the rounded problem; freed amounts are still stated unrounded.
  // 0 = exact, right for integers such as parameters.
  double quantum = 0;
};

// All choices that no other choice beats in both loss and amount freed in the first budget (whose must_free is not
// looked at), from the least loss to the most freed. Holds packed masks, so a curve of a million points is affordable.
class KnapsackCurve {
 public:
  std::size_t size() const;
  double freed(std::size_t point) const;
  double loss(std::size_t point) const;
  Mask removed(std::size_t point) const;
  // The first point that frees enough: without a quantum the same choice as solve_knapsack's. usage_error where it is
  // more than can be freed.
  Solution at_target(double must_free) const;

 private:
  friend KnapsackCurve knapsack_curve(const Problem& problem, const CurveOptions& options);
  struct Data;
  std::shared_ptr<const Data> data_;
};

KnapsackCurve knapsack_curve(const Problem& problem, const CurveOptions& options = {});

}  // namespace laptopdiff::pruning
