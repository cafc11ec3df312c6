// Every metric of every setting: dots with intervals, and the table.
#include <algorithm>
#include <cmath>

#include "experiments/report/html.h"
#include "experiments/report/numbers.h"
#include "experiments/report/sections.h"
#include "experiments/report/svg.h"
#include "runtime/error.h"
#include "runtime/progress.h"

namespace laptopdiff::report {
namespace {

using runtime::cat;

constexpr double kPanelWidth = 480, kRow = 24, kPanelTop = 10, kPanelBottom = 46, kCharacter = 6.7;
constexpr double kLeastPlot = 264;        // room for dots and whiskers beside the names
constexpr std::size_t kLongestName = 80;  // longer ones lose their middle

bool is_inside_character(char byte) { return (static_cast<unsigned char>(byte) & 0xC0) == 0x80; }  // UTF-8

std::string short_name(const std::string& name) {
  if (name.size() <= kLongestName) return name;
  std::size_t begin = kLongestName / 2, end = name.size() - kLongestName / 2;
  while (begin > 0 && is_inside_character(name[begin])) --begin;
  while (end < name.size() && is_inside_character(name[end])) ++end;
  return cat(name.substr(0, begin), "\u2026", name.substr(end));
}

std::string shown(const MetricInfo& info, double value) {
  return cat(significant(value * info.factor, info.factor == 100 ? 3 : 4), info.unit);
}

std::string interval_text(const MetricInfo& info, const Interval& interval) {
  return cat(significant(interval.low * info.factor, info.factor == 100 ? 3 : 4), " to ", shown(info, interval.high));
}

const char* spread_text(Spread spread) {
  switch (spread) {
    case Spread::pictures: return "95\u00A0% over samples";
    case Spread::range: return "range of 2 seeds";
    case Spread::seeds: return "95\u00A0% over seeds";
    case Spread::none: break;
  }
  return "";
}

std::vector<const MetricInfo*> measured(const Material& material) {
  std::vector<const MetricInfo*> list;
  for (const MetricInfo& info : metric_table()) {
    const bool any = std::any_of(material.settings.begin(), material.settings.end(),
                                 [&](const Setting& setting) { return setting.metrics.contains(info.key); });
    if (any) list.push_back(&info);
  }
  return list;
}

// Room for the names of the rows.
double name_width(const Material& material) {
  std::size_t longest = 0;
  for (const Setting& setting : material.settings) longest = std::max(longest, short_name(setting.label).size());
  return kCharacter * static_cast<double>(longest);
}

double panel_width(const Material& material) {
  return std::max(kPanelWidth, name_width(material) + 22 + kLeastPlot + 16);
}

// One row a setting: a dot at the mean and a whisker over its interval; the teacher's value is a line through all.
std::string panel(const Material& material, const MetricInfo& info) {
  std::vector<double> values;
  std::vector<const Setting*> rows;
  for (const Setting& setting : material.settings) {
    const auto found = setting.metrics.find(info.key);
    if (found == setting.metrics.end()) continue;
    rows.push_back(&setting);
    values.push_back(found->second.mean * info.factor);
    if (found->second.spread != Spread::none) {
      values.push_back(found->second.interval.low * info.factor);
      values.push_back(found->second.interval.high * info.factor);
    }
  }
  const Axis axis = axis_around("", scaling_of(info), values);
  const double bottom = kPanelTop + kRow * static_cast<double>(rows.size()), width = panel_width(material);
  const double names = name_width(material), left = names + 22, right = width - 16;
  const auto x = [&](double value) { return left + axis.at(value * info.factor) * (right - left); };
  Svg svg(width, bottom + kPanelBottom, cat(info.name, " of every arm; the numbers are in the table below"));
  for (const auto& [value, text] : axis.ticks(6)) {
    svg.line(left + axis.at(value) * (right - left), kPanelTop, left + axis.at(value) * (right - left), bottom, "grid");
    svg.text(left + axis.at(value) * (right - left), bottom + 16, text, "tick middle");
  }
  svg.line(left, bottom, right, bottom, "axis");
  svg.text((left + right) / 2, bottom + 36,
           cat(info.name, info.factor == 100 ? " (%)" : "", info.is_wide ? ", logarithmic" : "",
               info.higher_is_better ? ", more is better \u2192" : ", \u2190 less is better"),
           "label middle");
  double y = kPanelTop + kRow / 2;
  for (const Setting* setting : rows) {
    svg.text(names + 8, y + 4, short_name(setting->label), "end");
    const Summary& summary = setting->metrics.at(info.key);
    if (setting->first().is_teacher()) svg.line(x(summary.mean), kPanelTop, x(summary.mean), bottom, "reference");
    std::string tooltip = cat(setting->label, ": ", shown(info, summary.mean));
    if (summary.spread != Spread::none) {
      svg.line(x(summary.interval.low), y, x(summary.interval.high), y, cat("stroke thick ", color_class(*setting)));
      tooltip += cat(" (", interval_text(info, summary.interval), ", ", spread_text(summary.spread), ")");
    }
    svg.mark(Shape::circle, x(summary.mean), y, 5, cat("fill ", color_class(*setting)), tooltip);
    y += kRow;
  }
  return svg.str();
}

std::string panels(const Material& material, const std::vector<const MetricInfo*>& metrics) {
  std::string body;
  // Beside each other panels with long names would be too small to read.
  const bool wide = panel_width(material) > kPanelWidth;
  for (const MetricInfo* info : metrics) {
    const std::string drawing = panel(material, *info);
    body += cat("<div class=\"panel\">", wide ? scrolling(drawing, info->name) : drawing, "</div>");
  }
  return figure(cat("<div class=\"panels", wide ? " wide" : "", "\">", body, "</div>"),
                "Each row is an arm; the dot is its value, the bar its 95\u00A0% interval where there is one, and the "
                "dashed line is the teacher.");
}

// The best setting but for the teacher.
const Setting* best(const Material& material, const MetricInfo& info) {
  const Setting* winner = nullptr;
  for (const Setting& setting : material.settings) {
    if (setting.first().is_teacher() || !setting.metrics.contains(info.key)) continue;
    const double gain = winner == nullptr ? 1 : setting.metrics.at(info.key).mean - winner->metrics.at(info.key).mean;
    if (winner == nullptr || (info.higher_is_better ? gain > 0 : gain < 0)) winner = &setting;
  }
  return winner;
}

// In the direction of the mean: "1.2 % to 3.4 %" worse, or better.
std::string decline_interval(const Summary& decline) {
  const double sign = decline.mean < 0 ? -1 : 1;
  const auto [low, high] = std::minmax(sign * decline.interval.low, sign * decline.interval.high);
  return cat(percent(low), " to ", percent(high));
}

std::string metric_cell(const MetricInfo& info, const Summary& value, const Summary* decline, bool is_best) {
  std::string cell =
      cat("<td class=\"number\">", is_best ? "<strong>" : "", shown(info, value.mean), is_best ? "</strong>" : "");
  if (value.spread != Spread::none) {
    cell += cat("<small>", interval_text(info, value.interval),
                value.spread == Spread::pictures ? "" : cat("<br>", spread_text(value.spread)), "</small>");
  }
  if (decline != nullptr) {
    const double mean = decline->mean;
    cell += cat("<small class=\"",
                mean > 0   ? "worse"
                : mean < 0 ? "better"
                           : "same",
                "\">", percent(std::abs(mean), std::abs(mean) >= 100 ? 0 : 1),
                mean > 0   ? " worse"
                : mean < 0 ? " better"
                           : " change",
                decline->spread == Spread::none ? "" : cat("<br>", decline_interval(*decline)), "</small>");
  }
  return cell + "</td>";
}

std::string share_cell(std::int64_t value, std::int64_t teacher) {
  std::string cell = cat("<td class=\"number\">", short_count(value));
  if (teacher > 0)
    cell += cat("<small>", percent(100.0 * static_cast<double>(value) / static_cast<double>(teacher)), "</small>");
  return cell + "</td>";
}

std::string table_head(const std::vector<const MetricInfo*>& metrics) {
  std::string head =
      "<thead><tr><th scope=\"col\">Arm</th><th scope=\"col\">Parameters<small>kept</small></th><th "
      "scope=\"col\">MACs<small>kept</small></th>"
      "<th scope=\"col\">Training steps</th>";
  for (const MetricInfo* info : metrics) {
    head += cat("<th scope=\"col\">", info->name, "<small>",
                info->higher_is_better ? "more is better" : "less is better", "</small></th>");
  }
  return head + "</tr></thead>";
}

std::string setting_row(const Material& material, const Setting& setting,
                        const std::vector<const MetricInfo*>& metrics) {
  const Arm* teacher = material.results.teacher();
  const std::string runs = setting.arms.size() > 1 ? cat("<small>", setting.arms.size(), " seeds</small>") : "";
  std::string row = cat("<tr><th scope=\"row\">", swatch(color_class(setting)), breakable(setting.label), runs, "</th>",
                        share_cell(setting.params, teacher != nullptr ? teacher->params : 0),
                        share_cell(setting.macs, teacher != nullptr ? teacher->macs : 0), "<td class=\"number\">",
                        setting.steps > 0 ? runtime::with_commas(setting.steps) : "\u2013", "</td>");
  for (const MetricInfo* info : metrics) {
    const auto value = setting.metrics.find(info->key);
    const auto decline = setting.declines.find(info->key);
    if (value == setting.metrics.end()) row += "<td class=\"number\">\u2013</td>";
    else
      row += metric_cell(*info, value->second,
                         decline == setting.declines.end() || setting.first().is_teacher() ? nullptr : &decline->second,
                         best(material, *info) == &setting);
  }
  return row + "</tr>\n";
}

std::string arm_rows(const Material& material, const std::vector<const MetricInfo*>& metrics) {
  std::string rows;
  for (const Arm& arm : material.results.arms) {
    rows += cat("<tr><th scope=\"row\">", escape(arm.name), "</th>", share_cell(arm.params, 0), share_cell(arm.macs, 0),
                "<td class=\"number\">", runtime::with_commas(arm.steps), "</td>");
    for (const MetricInfo* info : metrics) {
      const auto found = arm.metrics.find(info->key);
      if (found == arm.metrics.end()) rows += "<td class=\"number\">\u2013</td>";
      else rows += metric_cell(*info, summarize({found->second.value}, found->second.interval), nullptr, false);
    }
    rows += "</tr>\n";
  }
  return rows;
}

std::string meanings(const Material& material, const std::vector<const MetricInfo*>& metrics) {
  std::string items;
  for (const MetricInfo* info : metrics) {
    std::string features;
    for (const Arm& arm : material.results.arms) {
      if (!features.empty() || !arm.evaluation.is_object()) continue;
      const Json& about = arm.evaluation["metrics"].value(info->key, Json::object());
      if (about.is_object() && about.contains("features") && about["features"].is_string())
        features = about["features"].get<std::string>();
    }
    items += cat("<li><strong>", info->name, "</strong>: ", info->meaning,
                 features.empty() ? "" : cat(" (", escape(features), ")"), ".</li>");
  }
  return cat("<ul class=\"plain\">", items, "</ul>\n");
}

}  // namespace

Scaling scaling_of(const MetricInfo& info) { return info.is_wide ? Scaling::log : Scaling::linear; }

Section quality_section(const Material& material) {
  Section section{"quality", "What was lost", ""};
  const auto metrics = measured(material);
  if (metrics.empty()) section.body += missing("No arm was measured: results.json has no metric.");
  else section.body += panels(material, metrics);
  std::string rows;
  for (const Setting& setting : material.settings) rows += setting_row(material, setting, metrics);
  section.body += figure(
      scrolling(cat("<table class=\"quality\">", table_head(metrics), "<tbody>", rows, "</tbody></table>"),
                "Table of quality"),
      "Size and quality of every arm. Small print: the 95\u00A0% interval (over pictures or samples for a single run, "
      "Student\u2019s t over three or more "
      "seeds, the range of two), and the change against the teacher (left out where the teacher\u2019s interval "
      "includes 0). Bold: the best pruned arm. MACs are "
      "multiply\u2013accumulates of "
      "one pass of the U-Net.");
  section.body += meanings(material, metrics);
  if (material.results.arms.size() > material.settings.size()) {
    section.body += details(cat("Each of the ", material.results.arms.size(), " arms by itself"),
                            scrolling(cat("<table class=\"quality\">", table_head(metrics), "<tbody>",
                                          arm_rows(material, metrics), "</tbody></table>"),
                                      "Table of single arms"));
  }
  return section;
}

}  // namespace laptopdiff::report
