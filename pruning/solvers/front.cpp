#include "pruning/solvers/front.h"

#include <algorithm>
#include <limits>
#include <numeric>

namespace laptopdiff::pruning {

namespace {

// Answers "is there an inserted point that frees at least this much everywhere?" for points known beforehand.
//
// A balanced k-d tree over all candidates, of which the inserted ones are switched on; a node holds the componentwise
// maximum of its switched-on points, so a query only enters subtrees that may hold an answer.
class DominanceIndex {
 public:
  DominanceIndex(int dims, std::vector<double> points) : dims_(dims), points_(std::move(points)) {
    const std::size_t n = points_.size() / dims;
    order_.resize(n);
    std::iota(order_.begin(), order_.end(), 0u);
    build(0, n, 0);
    place_.resize(n);
    for (std::size_t i = 0; i < n; ++i) place_[order_[i]] = i;
    on_.assign(n, 0);
    highest_.assign(n * dims, -std::numeric_limits<double>::infinity());
  }

  void insert(std::size_t point) {
    const std::size_t place = place_[point];
    std::size_t first = 0, last = order_.size();
    on_[place] = 1;
    while (true) {
      const std::size_t middle = first + (last - first) / 2;
      for (int d = 0; d < dims_; ++d) {
        highest_[middle * dims_ + d] = std::max(highest_[middle * dims_ + d], points_[point * dims_ + d]);
      }
      if (place == middle) return;
      (place < middle ? last : first) = place < middle ? middle : middle + 1;
    }
  }

  bool covers(std::size_t point) const { return covers(0, order_.size(), points_.data() + point * dims_); }

 private:
  void build(std::size_t first, std::size_t last, int axis) {
    if (last - first < 2) return;
    const std::size_t middle = first + (last - first) / 2;
    std::nth_element(order_.begin() + first, order_.begin() + middle, order_.begin() + last,
                     [&](std::uint32_t a, std::uint32_t b) {
                       return points_[std::size_t(a) * dims_ + axis] < points_[std::size_t(b) * dims_ + axis];
                     });
    build(first, middle, (axis + 1) % dims_);
    build(middle + 1, last, (axis + 1) % dims_);
  }

  bool covers(std::size_t first, std::size_t last, const double* point) const {
    if (first >= last) return false;
    const std::size_t middle = first + (last - first) / 2;
    for (int d = 0; d < dims_; ++d) {
      if (highest_[middle * dims_ + d] < point[d]) return false;
    }
    if (on_[middle] && at_least(points_.data() + std::size_t(order_[middle]) * dims_, point)) return true;
    return covers(middle + 1, last, point) || covers(first, middle, point);
  }

  bool at_least(const double* a, const double* b) const {
    for (int d = 0; d < dims_; ++d) {
      if (a[d] < b[d]) return false;
    }
    return true;
  }

  int dims_;
  std::vector<double> points_;
  std::vector<std::uint32_t> order_;
  std::vector<std::size_t> place_;
  std::vector<std::uint8_t> on_;
  std::vector<double> highest_;
};

// Calls visit(set, index) for the states of both in the order of their ranks.
template <typename Visit>
void in_order(const StateSet& a, const StateSet& b, const Visit& visit) {
  std::size_t i = 0, j = 0;
  while (i < a.size() || j < b.size()) {
    const bool first = j == b.size() || (i < a.size() && !ranks_before(b, j, a, i));
    if (first) {
      visit(a, i++);
    } else {
      visit(b, j++);
    }
  }
}

StateSet merge_many_budgets(const StateSet& a, const StateSet& b) {
  std::vector<double> points;
  points.reserve(a.freed.size() + b.freed.size());
  in_order(a, b, [&](const StateSet& set, std::size_t i) {
    const auto freed = set.freed_of(i);
    points.insert(points.end(), freed.begin(), freed.end());
  });
  DominanceIndex index(a.dims, std::move(points));
  StateSet result{a.dims, a.words, {}, {}, {}, {}};
  std::size_t at = 0;
  in_order(a, b, [&](const StateSet& set, std::size_t i) {
    if (!index.covers(at)) {
      index.insert(at);
      result.append(set, i);
    }
    ++at;
  });
  return result;
}

}  // namespace

void StateSet::append(const StateSet& from, std::size_t i) {
  loss.push_back(from.loss[i]);
  count.push_back(from.count[i]);
  for (int d = 0; d < dims; ++d) freed.push_back(from.freed[i * dims + d]);
  for (int w = 0; w < words; ++w) mask.push_back(from.mask[i * words + w]);
}

StateSet empty_choice(int dims, int items) { return single_choice(items, {}, 0.0, std::vector<double>(dims, 0.0)); }

StateSet single_choice(int items, const std::vector<int>& removed, double loss, const std::vector<double>& freed) {
  const int words = (items + 63) / 64;
  StateSet set{static_cast<int>(freed.size()), words, {loss}, freed, {std::uint32_t(removed.size())}, {}};
  set.mask.assign(words, 0);
  for (int i : removed) set.mask[i / 64] |= std::uint64_t(1) << (63 - i % 64);
  return set;
}

Mask unpack(std::span<const std::uint64_t> words, std::size_t items) {
  Mask mask(items);
  for (std::size_t i = 0; i < items; ++i) mask[i] = words[i / 64] >> (63 - i % 64) & 1;
  return mask;
}

bool ranks_before(const StateSet& a, std::size_t i, const StateSet& b, std::size_t j) {
  if (a.loss[i] != b.loss[j]) return a.loss[i] < b.loss[j];
  if (a.count[i] != b.count[j]) return a.count[i] < b.count[j];
  return std::ranges::lexicographical_compare(a.mask_of(i), b.mask_of(j));
}

StateSet merge(const StateSet& a, const StateSet& b) {
  if (a.size() == 0) return b;
  if (b.size() == 0) return a;
  if (a.dims > 1) return merge_many_budgets(a, b);
  StateSet result{a.dims, a.words, {}, {}, {}, {}};
  double most = -std::numeric_limits<double>::infinity();
  in_order(a, b, [&](const StateSet& set, std::size_t i) {
    const double freed = set.dims == 1 ? set.freed[i] : 0.0;  // without budgets only the first state survives
    if (freed <= most) return;
    most = freed;
    result.append(set, i);
  });
  return result;
}

StateSet sum_of(const StateSet& a, const StateSet& b, std::size_t option) {
  const std::vector<double> unlimited(a.dims, std::numeric_limits<double>::infinity());
  return add_option(a, b, option, unlimited, [](double, std::span<const double>) { return true; });
}

}  // namespace laptopdiff::pruning
