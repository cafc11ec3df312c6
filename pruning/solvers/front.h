// Dominance (Pareto) fronts of partial choices: the machinery of the exact knapsack.
//
// A state is a choice for some of the items. State a dominates b where a frees at least as much in every budget and
// ranks before b; ranks are total: loss, then fewer items removed, then the mask in item order (keeping the earlier
// item first). A dominated state cannot lead to a better completion (Nemhauser and Ullmann, "Discrete dynamic
// programming and capital allocation", 1969), so a front holds every choice that can still matter.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "pruning/solvers/problem.h"

namespace laptopdiff::pruning {

// States in the order of their ranks, one column an attribute.
struct StateSet {
  int dims = 0;                      // budgets
  int words = 0;                     // 64-bit words of a mask; item 0 is the highest bit of the first word
  std::vector<double> loss;          // [N]
  std::vector<double> freed;         // [N, dims]
  std::vector<std::uint32_t> count;  // [N] items removed
  std::vector<std::uint64_t> mask;   // [N, words]

  std::size_t size() const { return loss.size(); }
  std::span<const double> freed_of(std::size_t i) const { return {freed.data() + i * dims, std::size_t(dims)}; }
  std::span<const std::uint64_t> mask_of(std::size_t i) const { return {mask.data() + i * words, std::size_t(words)}; }
  void append(const StateSet& from, std::size_t i);
};

// One state: nothing decided, nothing removed.
StateSet empty_choice(int dims, int items);

// One state: exactly these items removed.
StateSet single_choice(int items, const std::vector<int>& removed, double loss, const std::vector<double>& freed);

Mask unpack(std::span<const std::uint64_t> words, std::size_t items);

// The rank of a's state i is before that of b's state j.
bool ranks_before(const StateSet& a, std::size_t i, const StateSet& b, std::size_t j);

// The non-dominated states of the two.
StateSet merge(const StateSet& a, const StateSet& b);

// State `option` of `options` added to every state of `front`, with freed amounts cut off at `ceiling` (more than what
// is asked for is worth nothing); the states that `admit(loss, freed)` refuses are left out.
template <typename Admit>
StateSet add_option(const StateSet& front, const StateSet& options, std::size_t option, std::span<const double> ceiling,
                    const Admit& admit) {
  StateSet result{front.dims, front.words, {}, {}, {}, {}};
  std::vector<double> freed(front.dims);
  for (std::size_t i = 0; i < front.size(); ++i) {
    const double loss = front.loss[i] + options.loss[option];
    for (int d = 0; d < front.dims; ++d) {
      const double sum = front.freed[i * front.dims + d] + options.freed[option * front.dims + d];
      freed[d] = sum < ceiling[d] ? sum : ceiling[d];
    }
    if (!admit(loss, std::span<const double>(freed))) continue;
    result.loss.push_back(loss);
    result.freed.insert(result.freed.end(), freed.begin(), freed.end());
    result.count.push_back(front.count[i] + options.count[option]);
    for (int w = 0; w < front.words; ++w) {
      result.mask.push_back(front.mask[i * front.words + w] | options.mask[option * front.words + w]);
    }
  }
  return result;
}

// State 0 of `a` and the given one of `b` together, as one state.
StateSet sum_of(const StateSet& a, const StateSet& b, std::size_t option);

}  // namespace laptopdiff::pruning
