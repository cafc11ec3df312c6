// What a solver expects to lose at every share kept, a line a curve file.
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

constexpr double kWidth = 720, kHeight = 380;
constexpr std::size_t kMostMarks = 100;  // more would hide the line

std::string curve_class(std::size_t i) { return cat("c", 1 + i % 8); }
std::string stroke_class(std::size_t i) { return cat("stroke series d", (1 + i) % 4, " ", curve_class(i)); }
std::string label_of(const CurveFile& curve) { return cat(curve.solver, " (", curve.objective, "), ", curve.name); }

std::string chart_of(const std::vector<const CurveFile*>& curves) {
  std::vector<double> shares, losses;
  for (const CurveFile* curve : curves) {
    for (const CurveFile::Point& point : curve->points) {
      if (!(point.loss > 0)) continue;  // has no place on the axis: what keeps all loses nothing
      shares.push_back(100 * point.keep);
      losses.push_back(point.loss);
    }
  }
  const std::string resource = curves.front()->resource;
  Chart chart(kWidth, kHeight, axis_around(cat(resource, " kept (%)"), Scaling::linear, shares),
              axis_around("predicted loss", Scaling::log, losses),
              cat("Predicted loss over the share of ", resource, " kept, a line a file, logarithmic"));
  for (std::size_t i = 0; i < curves.size(); ++i) {
    const CurveFile& curve = *curves[i];
    std::vector<std::pair<double, double>> points;
    for (const CurveFile::Point& point : curve.points) {
      if (!(point.loss > 0)) continue;
      points.emplace_back(chart.x(100 * point.keep), chart.y(point.loss));
      if (curve.points.size() > kMostMarks) continue;
      chart.svg().mark(Shape::circle, points.back().first, points.back().second, 3, cat("fill ", curve_class(i)),
                       cat(label_of(curve), "\n", percent(100 * point.keep), " of ", resource, " kept, ", point.removed,
                           " units removed, predicted loss ", significant(point.loss)));
    }
    chart.svg().polyline(points, stroke_class(i), label_of(curve));
  }
  return cat("<div class=\"panel\">", scrolling(chart.str(), cat("Curve of ", resource)), "</div>");
}

std::string legend_of(const std::vector<const CurveFile*>& curves) {
  std::string entries;
  for (std::size_t i = 0; i < curves.size(); ++i) {
    Svg mark(26, 10, label_of(*curves[i]));
    mark.line(1, 5, 25, 5, stroke_class(i));
    entries += legend_entry(mark.str(), label_of(*curves[i]));
  }
  return legend(entries);
}

}  // namespace

std::string predicted_curves(const std::vector<CurveFile>& curves) {
  std::map<std::string, std::vector<const CurveFile*>> of_resource;
  for (const CurveFile& curve : curves) of_resource[curve.resource].push_back(&curve);
  std::string body;
  for (const auto& [resource, files] : of_resource) {
    body += figure(cat(legend_of(files), chart_of(files)),
                   cat("The least loss that a solver predicts at each share of ", escape(resource),
                       " kept, before any training. Losses of different objectives, or of scores by different "
                       "criteria, are not on one scale: their shapes can be compared, not their heights."));
  }
  return body.empty() ? "" : cat("<h3>Predicted loss over size</h3>\n", body);
}

}  // namespace laptopdiff::report
