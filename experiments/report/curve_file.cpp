#include "experiments/report/curve_file.h"

#include <algorithm>

#include "runtime/error.h"
#include "runtime/json.h"

namespace laptopdiff::report {
namespace {

using runtime::cat;
using runtime::input_error;
using runtime::Json;
using runtime::ObjectReader;

constexpr const char* kFormat = "laptopdiff.curve/1";

CurveFile::Point parse_point(const Json& json, const std::string& where) {
  ObjectReader in(json, where);
  CurveFile::Point point{in.required<double>("keep"), in.required<double>("loss"), 0};
  const Json& removed = in.raw("removed");
  if (!removed.is_array()) throw input_error(where, ": `removed` must be a list");
  point.removed = removed.size();
  in.finish();
  if (point.keep < 0 || point.keep > 1) throw input_error(where, ": `keep` is ", point.keep, ", expected 0 to 1");
  return point;
}

}  // namespace

CurveFile read_curve(const std::filesystem::path& path) {
  const Json json = runtime::read_json(path);
  const std::string where = path.string();
  ObjectReader in(json, where);
  in.require_format(kFormat, "`laptopdiff solve --curve`");
  CurveFile curve;
  curve.name = path.filename().string();
  curve.resource = in.required<std::string>("resource");
  curve.solver = in.required<std::string>("solver");
  curve.objective = in.required<std::string>("objective");
  for (const char* key : {"total", "choices", "made_by"}) in.ignore(key);
  const Json& points = in.raw("points");
  if (!points.is_array() || points.empty()) throw input_error(where, ": `points` must be a list that is not empty");
  for (std::size_t i = 0; i < points.size(); ++i)
    curve.points.push_back(parse_point(points[i], cat(where, ": points[", i, "]")));
  in.finish();
  std::stable_sort(curve.points.begin(), curve.points.end(),
                   [](const auto& a, const auto& b) { return a.keep > b.keep; });
  return curve;
}

}  // namespace laptopdiff::report
