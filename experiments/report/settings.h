// Settings of a study: arms that differ in nothing but their seed are one setting, and its numbers are means.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "experiments/report/study_results.h"

namespace laptopdiff::report {

enum class Spread {
  none,
  pictures,  // 95 % bootstrap interval over pictures, one run
  range,     // least and greatest of two runs
  seeds,     // 95 % t-interval over three or more runs
};

struct Summary {
  double mean = 0;
  Spread spread = Spread::none;
  Interval interval;
  int runs = 0;
};

// `interval` is of a single run and is used only where there is one value.
Summary summarize(const std::vector<double>& values, const std::optional<Interval>& interval = std::nullopt);

// The two-sided 95 % quantile of Student's t.
double student_t(int degrees_of_freedom);

struct Setting {
  std::string label;             // the group and the axes that have several values, but for seeds
  std::string line;              // the same without the budget axes: settings of one line are joined in curves
  int color = 0;                 // of the line; 0 is the teacher
  std::vector<const Arm*> arms;  // one a seed
  std::int64_t params = 0, macs = 0, steps = 0;  // of the first; seeds do not change them
  std::map<std::string, Summary> metrics;
  std::map<std::string, Summary> declines;  // none where the teacher's own interval includes 0

  const Arm& first() const { return *arms.front(); }
};

// In the order of the arms. They point into `results`.
std::vector<Setting> settings_of(const StudyResults& results);

// The axes whose values decide how much is kept: they set solve.budget, or are numbers.
std::vector<std::string> budget_axes(const StudyResults& results);

}  // namespace laptopdiff::report
