#include "experiments/report/training_log.h"

#include <algorithm>
#include <cstdlib>
#include <sstream>
#include <tuple>

#include "runtime/error.h"
#include "runtime/file.h"
#include "runtime/json.h"

namespace laptopdiff::report {
namespace {

using runtime::cat;
using runtime::Json;
using runtime::ObjectReader;

LogRow parse_row(const Json& json, const std::string& where) {
  ObjectReader in(json, where);
  LogRow row;
  row.step = in.required<std::int64_t>("step");
  row.loss = in.required<double>("loss");
  row.task = in.get<double>("task", 0);
  row.output = in.get<double>("output", 0);
  row.feature = in.get<double>("feature", 0);
  const Json& taps = in.raw("taps");
  if (taps.is_null()) return row;
  if (!taps.is_object()) throw runtime::input_error(where, ": `taps` must be an object");
  for (const auto& [name, value] : taps.items()) {
    ObjectReader tap(value, cat(where, ": taps.", name));
    row.taps[name] = {tap.required<double>("raw"), tap.required<double>("balanced")};
  }
  return row;
}

// (side, stage number, rest): "down_blocks.2.attentions.0" is (1, 2, ...).
std::tuple<int, int, std::string> place(const std::string& tap) {
  const auto numbered = [&](std::size_t prefix) { return std::atoi(tap.c_str() + prefix); };
  if (tap.rfind("down_blocks.", 0) == 0) return {1, numbered(12), tap};
  if (tap.rfind("mid_block", 0) == 0) return {2, 0, tap};
  if (tap.rfind("up_blocks.", 0) == 0) return {3, numbered(10), tap};
  return {tap == "conv_in" ? 0 : 4, 0, tap};
}

}  // namespace

TrainingLog read_training_log(const std::filesystem::path& path) {
  std::istringstream lines(runtime::read_file(path));
  TrainingLog log;
  int number = 0;
  for (std::string line; std::getline(lines, line);) {
    ++number;
    const Json json = Json::parse(line, nullptr, false);
    if (json.is_object()) log.push_back(parse_row(json, cat(path.string(), " line ", number)));
  }
  return log;
}

std::vector<std::string> taps_in_order(const TrainingLog& log) {
  std::vector<std::string> names;
  if (log.empty()) return names;
  for (const auto& [name, loss] : log.back().taps) names.push_back(name);
  std::sort(names.begin(), names.end(), [](const std::string& a, const std::string& b) { return place(a) < place(b); });
  return names;
}

double term(const TapLoss& loss, Term which) { return which == Term::raw ? loss.raw : loss.balanced; }

Shares shares(const LogRow& row, Term which) {
  double sum = 0;
  for (const auto& [name, loss] : row.taps) sum += term(loss, which);
  Shares result;
  if (sum <= 0) return result;
  result.smallest = 2;
  for (const auto& [name, loss] : row.taps) {
    const double share = term(loss, which) / sum;
    if (share > result.largest) std::tie(result.largest, result.largest_tap) = std::tie(share, name);
    if (share < result.smallest) std::tie(result.smallest, result.smallest_tap) = std::tie(share, name);
  }
  return result;
}

}  // namespace laptopdiff::report
