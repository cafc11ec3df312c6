// Metrics over size where a study has several budgets, and training losses over steps.
#include <algorithm>
#include <map>

#include "experiments/report/html.h"
#include "experiments/report/numbers.h"
#include "experiments/report/sections.h"
#include "experiments/report/svg.h"
#include "runtime/error.h"

namespace laptopdiff::report {
namespace {

using runtime::cat;

constexpr double kWidth = 480, kHeight = 280;

// Settings that differ in their budget only, in order of size.
using Lines = std::map<std::string, std::vector<const Setting*>>;

Lines lines_of(const Material& material) {
  Lines lines;
  for (const Setting& setting : material.settings) {
    if (!setting.first().is_teacher()) lines[setting.line].push_back(&setting);
  }
  for (auto& [name, line] : lines) {
    std::sort(line.begin(), line.end(), [](const Setting* a, const Setting* b) { return a->params < b->params; });
  }
  return lines;
}

// Dashes tell lines apart where colours do not.
std::string line_class(const Setting& setting) {
  return cat("stroke series d", setting.color % 4, " ", color_class(setting));
}

double kept(const Material& material, const Setting& setting) {
  const Arm* teacher = material.results.teacher();
  const double whole = teacher != nullptr ? static_cast<double>(teacher->params)
                       : material.pruning ? static_cast<double>(material.pruning->base.params())
                                          : 0;
  return whole > 0 ? 100 * static_cast<double>(setting.params) / whole : static_cast<double>(setting.params);
}

std::string size_chart(const Material& material, const Lines& lines, const MetricInfo& info) {
  std::vector<double> xs, ys;
  for (const Setting& setting : material.settings) {
    const auto found = setting.metrics.find(info.key);
    if (found == setting.metrics.end()) continue;
    if (!setting.first().is_teacher()) xs.push_back(kept(material, setting));
    ys.push_back(found->second.mean * info.factor);
    if (found->second.spread != Spread::none) {
      ys.push_back(found->second.interval.low * info.factor);
      ys.push_back(found->second.interval.high * info.factor);
    }
  }
  if (xs.empty()) return "";
  Chart chart(kWidth, kHeight, axis_around("parameters kept (%)", Scaling::linear, xs),
              axis_around(cat(info.name, info.factor == 100 ? " (%)" : ""), scaling_of(info), ys),
              cat(info.name,
                  " over the share of parameters kept, a line a kind of arm; the numbers are in the table of quality"));
  if (const Arm* teacher = material.results.teacher(); teacher != nullptr && teacher->metrics.contains(info.key)) {
    const double y = chart.y(teacher->metrics.at(info.key).value * info.factor);
    chart.svg().line(chart.left(), y, chart.right(), y, "reference");
    chart.svg().text(chart.right() - 4, y - 5, "teacher", "tick end halo");
  }
  for (const auto& [name, line] : lines) {
    std::vector<std::pair<double, double>> points;
    for (const Setting* setting : line) {
      const auto found = setting->metrics.find(info.key);
      if (found == setting->metrics.end()) continue;
      const double x = chart.x(kept(material, *setting)), y = chart.y(found->second.mean * info.factor);
      points.emplace_back(x, y);
      if (found->second.spread != Spread::none) {
        chart.svg().line(x, chart.y(found->second.interval.low * info.factor), x,
                         chart.y(found->second.interval.high * info.factor), cat("stroke ", color_class(*setting)));
      }
      chart.svg().mark(Shape::circle, x, y, 4, cat("fill ", color_class(*setting)),
                       cat(setting->label, "\n", percent(kept(material, *setting)), " kept, ", info.name, " ",
                           significant(found->second.mean * info.factor), info.unit));
    }
    chart.svg().polyline(points, line_class(*line.front()), name);
  }
  return cat("<div class=\"panel\">", chart.str(), "</div>");
}

// Settings of one line share an entry.
std::string line_legend(const std::vector<const Setting*>& settings) {
  std::string entries;
  std::vector<std::string> seen;
  for (const Setting* setting : settings) {
    const std::string& name = setting->line;
    if (std::find(seen.begin(), seen.end(), name) != seen.end()) continue;
    seen.push_back(name);
    Svg mark(26, 10, name);
    mark.line(1, 5, 25, 5, line_class(*setting));
    entries += legend_entry(mark.str(), name);
  }
  return legend(entries);
}

std::string size_curves(const Material& material) {
  if (budget_axes(material.results).empty()) return "";
  const Lines lines = lines_of(material);
  std::string charts;
  for (const MetricInfo& info : metric_table()) charts += size_chart(material, lines, info);
  if (charts.empty()) return "";
  std::vector<const Setting*> students;
  for (const Setting& setting : material.settings) {
    if (!setting.first().is_teacher()) students.push_back(&setting);
  }
  return cat("<h3>Quality over size</h3>\n",
             figure(cat(line_legend(students), "<div class=\"panels\">", charts, "</div>"),
                    "A line joins arms that differ in their budget only. Whiskers are the intervals of the table "
                    "above; the dashed line is the teacher."));
}

struct LossPart {
  const char* name;
  double LogRow::*value;
};
constexpr LossPart kParts[] = {{"task loss", &LogRow::task},
                               {"output distillation loss", &LogRow::output},
                               {"feature loss, balanced", &LogRow::feature},
                               {"total loss", &LogRow::loss}};

std::string loss_chart(const std::vector<const Setting*>& trained, const LossPart& part) {
  std::vector<double> values;
  double last = 1;
  for (const Setting* setting : trained) {
    for (const LogRow& row : setting->first().log) values.push_back(row.*part.value);
    last = std::max(last, static_cast<double>(setting->first().log.back().step));
  }
  if (std::none_of(values.begin(), values.end(), [](double value) { return value > 0; })) return "";
  Chart chart(kWidth, kHeight, {"step", Scaling::linear, 0, last}, axis_around(part.name, Scaling::log, values),
              cat("The ", part.name, " of every retrained arm over its training steps, logarithmic"));
  for (const Setting* setting : trained) {
    std::vector<std::pair<double, double>> points;
    for (const LogRow& row : setting->first().log) {
      if (row.*part.value > 0) points.emplace_back(chart.x(static_cast<double>(row.step)), chart.y(row.*part.value));
    }
    chart.svg().polyline(points, line_class(*setting), setting->label);
  }
  return cat("<div class=\"panel\">", chart.str(), "</div>");
}

std::string loss_curves(const Material& material) {
  std::vector<const Setting*> trained;
  for (const Setting& setting : material.settings) {
    if (!setting.first().log.empty()) trained.push_back(&setting);
  }
  if (trained.empty()) return missing("Training curves are left out: no training log is there.");
  std::string charts;
  for (const LossPart& part : kParts) charts += loss_chart(trained, part);
  const bool seeds =
      std::any_of(trained.begin(), trained.end(), [](const Setting* setting) { return setting->arms.size() > 1; });
  return cat("<h3>Training</h3>\n", figure(cat(line_legend(trained), "<div class=\"panels\">", charts, "</div>"),
                                           cat("The parts of the loss as logged, on one batch each. Task and output "
                                               "loss can be compared between arms; feature and total loss only between "
                                               "arms with the same taps and balance.",
                                               seeds ? " Of several seeds the first is shown." : "")));
}

}  // namespace

Section curves_section(const Material& material) {
  return {"curves", "Curves", size_curves(material) + predicted_curves(material.curves) + loss_curves(material)};
}

}  // namespace laptopdiff::report
