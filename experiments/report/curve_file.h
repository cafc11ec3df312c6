// curve.json of `solve --curve` read back: the least predicted loss at every share that is kept.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

namespace laptopdiff::report {

struct CurveFile {
  std::string name;                         // of the file, without its folder
  std::string resource, solver, objective;  // "params", "knapsack", "sum of scores"
  struct Point {
    double keep = 0;  // share of the resource, 0 to 1
    double loss = 0;
    std::size_t removed = 0;  // units
  };
  std::vector<Point> points;  // from all kept to the least
};

// Throws Error(bad_input).
CurveFile read_curve(const std::filesystem::path& path);

}  // namespace laptopdiff::report
