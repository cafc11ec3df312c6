// Lower bounds for the quadratic solver's branch and bound.
//
// For 0/1 variables y_i^2 = y_i, so y'Qy = y'(Q - D)y + d'y for any diagonal D = diag(d). Where Q - D is positive
// semi-definite the right side is convex and its minimum over the relaxed choices is a bound (Billionnet and Elloumi,
// "Using a mixed integer quadratic programming solver for the unconstrained quadratic 0-1 problem", 2007). Variables
// are fixed in one order, so every depth of the tree has its own, larger d for the variables that are left (Buchheim,
// Caprara and Lodi, "An effective branch-and-bound algorithm for convex quadratic integer programming", 2012).
//
// The convex minimum is never trusted: whatever point a few descent steps reach, the function lies above its tangent
// plane there, and the least value of that plane over the choices is found exactly. So every bound is valid.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "pruning/solvers/ordered_form.h"

namespace laptopdiff::pruning {

// The values that a node has fixed: variables [0, level) in branching order.
struct Node {
  int level = 0;
  std::vector<std::uint8_t> fixed;  // [level]
  std::vector<double> point;        // [size - level] where to start; on return where the descent ended
};

struct NodeBound {
  double bound = 0;                  // +inf where no completion meets the budget
  std::vector<std::uint8_t> vertex;  // [size - level] a completion that meets the one budget, or empty
};

class Relaxation {
 public:
  // `importance` [size]: how much each d_i matters, about y(1 - y) at the relaxed minimum.
  // Levels: the depths to prepare, from `first_level` on; others reuse the last one above them.
  Relaxation(OrderedForm ordered, std::span<const double> importance, int first_level, bool every_level);

  // A valid bound on the loss of every completion. Stops early once it reaches `cutoff`.
  NodeBound bound(Node& node, double cutoff) const;

  const OrderedForm& ordered() const { return ordered_; }
  // d at a level, [size - level].
  std::span<const double> shift(int level) const;

 private:
  OrderedForm ordered_;
  int first_level_ = 0;
  std::vector<std::vector<double>> shifts_;
};

}  // namespace laptopdiff::pruning
