#include "experiments/report/settings.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <set>

#include "runtime/error.h"

namespace laptopdiff::report {
namespace {

using runtime::cat;

constexpr int kColors = 8;

bool ends_with(const std::string& text, const std::string& end) {
  return text.size() >= end.size() && text.compare(text.size() - end.size(), end.size(), end) == 0;
}

// What study.json says an axis sets; empty where it does not.
std::vector<std::string> axis_paths(const StudyResults& results, const std::string& axis) {
  std::vector<std::string> paths;
  const Json& study = results.study;
  if (!study.is_object() || !study.contains("axes") || !study["axes"].is_object() || !study["axes"].contains(axis))
    return paths;
  const Json& entry = study["axes"][axis];
  if (!entry.is_object() || !entry.contains("set") || !entry["set"].is_array()) return paths;
  for (const Json& path : entry["set"]) {
    if (path.is_string()) paths.push_back(path.get<std::string>());
  }
  return paths;
}

bool is_seed(const StudyResults& results, const std::string& axis) {
  if (axis == "seed") return true;
  const auto paths = axis_paths(results, axis);
  return !paths.empty() &&
         std::all_of(paths.begin(), paths.end(), [](const std::string& path) { return ends_with(path, ".seed"); });
}

// Axes with several values that are no seeds.
std::map<std::string, std::set<std::string>> varied_axes(const StudyResults& results) {
  std::map<std::string, std::set<std::string>> values;
  for (const Arm& arm : results.arms) {
    for (const auto& [axis, value] : arm.at) {
      if (!is_seed(results, axis)) values[axis].insert(value.dump());
    }
  }
  std::erase_if(values, [](const auto& entry) { return entry.second.size() < 2; });
  return values;
}

std::string value_text(const Json& value) { return value.is_string() ? value.get<std::string>() : value.dump(); }

std::string label_of(const Arm& arm, const std::map<std::string, std::set<std::string>>& axes,
                     const std::vector<std::string>& without) {
  std::string label = arm.group;
  for (const auto& [axis, value] : arm.at) {
    if (axes.contains(axis) && std::find(without.begin(), without.end(), axis) == without.end())
      label += cat(" ", axis, "=", value_text(value));
  }
  return label;
}

// A share of a value that may as well be 0 says nothing.
bool may_be_zero(const Arm* teacher, const char* metric) {
  if (teacher == nullptr) return false;
  const auto found = teacher->metrics.find(metric);
  if (found == teacher->metrics.end() || !found->second.interval) return false;
  return found->second.interval->low <= 0 && found->second.interval->high >= 0;
}

void summarize_metrics(Setting& setting, const Arm* teacher) {
  for (const MetricInfo& info : metric_table()) {
    std::vector<double> values, declines;
    std::optional<Interval> interval;
    for (const Arm* arm : setting.arms) {
      if (const auto found = arm->metrics.find(info.key); found != arm->metrics.end()) {
        values.push_back(found->second.value);
        interval = found->second.interval;
      }
      if (const auto found = arm->declines.find(info.key); found != arm->declines.end())
        declines.push_back(found->second);
    }
    if (!values.empty()) setting.metrics[info.key] = summarize(values, interval);
    if (!declines.empty() && !may_be_zero(teacher, info.key)) setting.declines[info.key] = summarize(declines);
  }
}

}  // namespace

double student_t(int degrees_of_freedom) {
  static constexpr double kTable[] = {12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228,
                                      2.201,  2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086,
                                      2.080,  2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042};
  if (degrees_of_freedom < 1) throw runtime::input_error("student_t: ", degrees_of_freedom, " degrees of freedom");
  if (degrees_of_freedom <= 30) return kTable[degrees_of_freedom - 1];
  // Cornish-Fisher, good to three digits from 30 on.
  const double z = 1.959964, z3 = z * z * z;
  return z + (z3 + z) / (4.0 * degrees_of_freedom);
}

Summary summarize(const std::vector<double>& values, const std::optional<Interval>& interval) {
  Summary summary;
  summary.runs = static_cast<int>(values.size());
  if (values.empty()) return summary;
  const auto n = static_cast<double>(values.size());
  summary.mean = std::accumulate(values.begin(), values.end(), 0.0) / n;
  const auto [low, high] = std::minmax_element(values.begin(), values.end());
  if (values.size() == 1) {
    if (interval) {
      summary.spread = Spread::pictures;
      summary.interval = *interval;
    }
  } else if (values.size() == 2) {
    summary.spread = Spread::range;
    summary.interval = {*low, *high};
  } else {
    double squares = 0;
    for (const double value : values) squares += (value - summary.mean) * (value - summary.mean);
    const double half = student_t(summary.runs - 1) * std::sqrt(squares / (n - 1) / n);
    summary.spread = Spread::seeds;
    summary.interval = {summary.mean - half, summary.mean + half};
  }
  return summary;
}

std::vector<std::string> budget_axes(const StudyResults& results) {
  std::vector<std::string> axes;
  for (const auto& [axis, values] : varied_axes(results)) {
    const auto paths = axis_paths(results, axis);
    const bool budget = std::find(paths.begin(), paths.end(), "solve.budget") != paths.end();
    const bool numbers = std::all_of(results.arms.begin(), results.arms.end(), [&axis = axis](const Arm& arm) {
      const auto found = arm.at.find(axis);
      return found == arm.at.end() || found->second.is_number();
    });
    const bool of_solve = paths.empty() || std::any_of(paths.begin(), paths.end(), [](const std::string& path) {
                            return path.rfind("solve.", 0) == 0;
                          });
    if (budget || (numbers && of_solve)) axes.push_back(axis);
  }
  return axes;
}

std::vector<Setting> settings_of(const StudyResults& results) {
  const auto axes = varied_axes(results);
  const std::vector<std::string> budgets = budget_axes(results);
  std::vector<Setting> settings;
  std::vector<std::string> lines;
  for (const Arm& arm : results.arms) {
    const std::string label = label_of(arm, axes, {});
    auto found =
        std::find_if(settings.begin(), settings.end(), [&](const Setting& setting) { return setting.label == label; });
    if (found == settings.end()) {
      Setting setting;
      setting.label = label;
      setting.line = label_of(arm, axes, budgets);
      setting.params = arm.params;
      setting.macs = arm.macs;
      setting.steps = arm.steps;
      if (!arm.is_teacher()) {
        const auto line = std::find(lines.begin(), lines.end(), setting.line);
        if (line == lines.end()) lines.push_back(setting.line);
        const auto index = static_cast<int>(std::find(lines.begin(), lines.end(), setting.line) - lines.begin());
        setting.color = 1 + index % kColors;
      }
      found = settings.insert(settings.end(), std::move(setting));
    }
    found->arms.push_back(&arm);
  }
  for (Setting& setting : settings) summarize_metrics(setting, results.teacher());
  return settings;
}

}  // namespace laptopdiff::report
