// The middle value of a list; of an even count, the mean of the two middle ones.
#pragma once

#include <algorithm>
#include <cstddef>
#include <vector>

namespace laptopdiff::runtime {

// `values` must not be empty.
inline double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  const std::size_t half = values.size() / 2;
  return values.size() % 2 == 1 ? values[half] : (values[half - 1] + values[half]) / 2;
}

}  // namespace laptopdiff::runtime
