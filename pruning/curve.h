// The whole ratio curve of a solver: the least loss at every share kept. Format `laptopdiff.curve/1`. Knows no torch.
#pragma once

#include <functional>

#include "pruning/solvers/problem.h"
#include "runtime/json.h"

namespace laptopdiff::pruning {

struct CurvePoint {
  double kept = 0;  // share of the resource that is left
  double loss = 0;  // the solver's objective
  Mask removed;
};

struct Curve {
  std::vector<CurvePoint> points;   // from all kept to the least
  std::size_t choices = 0;          // how many the exact curve has; its points are thinned beyond kMostPoints
  std::vector<double> unreachable;  // shares that were asked for and that no choice meets
};
inline constexpr std::size_t kMostPoints = 1000;

// Every choice that no other beats in both the sum of scores and what it frees in the problem's one budget, exactly;
// amounts that are no whole numbers are rounded to 1/10000 of the total for it. Beyond kMostPoints the points are those
// of equally spaced shares, less those between which there is no choice.
Curve knapsack_curve_points(const Problem& problem);

// One point a share, in the order of `keep`, each solved by itself; shares that cannot be reached have none. Throws
// Error(usage) where none can be reached, and what `solve` throws.
Curve curve_at(const Problem& problem, const std::vector<double>& keep,
               const std::function<Solution(const Problem&)>& solve);

runtime::Json curve_json(const Curve& curve, const Problem& problem, const std::string& solver,
                         const std::string& objective);

}  // namespace laptopdiff::pruning
