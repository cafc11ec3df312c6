// Masks for intervals of timesteps: bins of a scoring run joined into intervals, and what the masks have in common.
// Knows no torch.
#pragma once

#include "pruning/scores.h"
#include "pruning/solvers/problem.h"

namespace laptopdiff::pruning {

// What the intervals are to have equal shares of.
enum class IntervalRule {
  width,  // timesteps
  snr,    // the log of the signal-to-noise ratio
  loss,   // the sum of all units' scores over the timesteps
};
const char* rule_name(IntervalRule rule);
// Throws Error(usage) on an unknown name.
IntervalRule parse_rule(const std::string& name);

// The log of the signal-to-noise ratio at the bins' edges: of the timestep at each edge, of the last one at the end.
using LogSnr = std::vector<double>;

// Which bins belong to each interval: bins [begin[i], begin[i + 1]) to interval i, one bin or more each. An interval is
// a union of whole bins, so every inner edge is the bins' edge nearest to its equal share (the earlier of two that are
// equally near), moved where a neighbour needs the bin. `log_snr` is only looked at for `snr`.
// Throws Error(usage): scores without bins, fewer bins than intervals, bins without samples for `loss`, a log_snr that
// does not fall from edge to edge.
std::vector<int> cut_bins(const Scores& scores, int intervals, IntervalRule rule, const LogSnr& log_snr = {});

// The scores over bins [first, last): means weighted by samples; no value where a bin with samples has none. `bins` of
// the result is empty. Throws Error(usage) where the bins have no samples.
Scores join_bins(const Scores& scores, int first, int last);

// What masks over the same items have in common.
struct Overlap {
  std::vector<std::vector<double>> jaccard;  // of the removed sets of masks i and j; 1 where both are empty
  std::vector<int> kept_by;                  // an item: how many masks keep it
};
Overlap overlap(const std::vector<Mask>& masks);

}  // namespace laptopdiff::pruning
