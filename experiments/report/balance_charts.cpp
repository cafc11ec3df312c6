// The feature loss of each tap before and after balancing: imbalance must be seen.
#include <algorithm>
#include <cmath>
#include <iterator>

#include "experiments/report/html.h"
#include "experiments/report/numbers.h"
#include "experiments/report/sections.h"
#include "experiments/report/svg.h"
#include "runtime/error.h"
#include "runtime/progress.h"

namespace laptopdiff::report {
namespace {

using runtime::cat;

constexpr std::size_t kShown = 4;       // further arms are folded away
constexpr std::size_t kNamedTaps = 12;  // legends with more entries would be longer than the chart

// Taps run through one range of colours in the order of the U-Net.
std::string tap_style(std::size_t index, std::size_t count) {
  // Readable on light and dark paper, and under white text.
  static constexpr int kStops[][3] = {{122, 91, 224}, {47, 127, 214}, {15, 143, 143},
                                      {79, 143, 47},  {179, 120, 26}, {208, 67, 47}};
  constexpr int kLast = static_cast<int>(std::size(kStops)) - 1;
  const double place = count < 2 ? 0 : kLast * static_cast<double>(index) / static_cast<double>(count - 1);
  const int from = std::min(static_cast<int>(place), kLast - 1);
  const auto mixed = [&](int channel) {
    return static_cast<int>(
        std::lround(kStops[from][channel] + (place - from) * (kStops[from + 1][channel] - kStops[from][channel])));
  };
  return cat("--c:rgb(", mixed(0), " ", mixed(1), " ", mixed(2), ")");
}

const char* name_of(Term which) { return which == Term::raw ? "raw" : "balanced"; }

Axis step_axis(const TrainingLog& log) {
  Axis axis{"step", Scaling::linear, 0, static_cast<double>(std::max<std::int64_t>(1, log.back().step))};
  return axis;
}

std::string chart(const Arm& arm, const std::vector<std::string>& taps, Term which) {
  std::vector<double> values;
  for (const LogRow& row : arm.log) {
    for (const auto& [name, loss] : row.taps) values.push_back(term(loss, which));
  }
  Chart chart(480, 280, step_axis(arm.log), axis_around(cat(name_of(which), " feature loss"), Scaling::log, values),
              cat("The ", name_of(which), " feature loss of ", taps.size(), " taps over the training steps of ",
                  arm.name, ", logarithmic"));
  for (std::size_t i = 0; i < taps.size(); ++i) {
    std::vector<std::pair<double, double>> points;
    for (const LogRow& row : arm.log) {
      const auto found = row.taps.find(taps[i]);
      if (found != row.taps.end() && term(found->second, which) > 0) {
        points.emplace_back(chart.x(static_cast<double>(row.step)), chart.y(term(found->second, which)));
      }
    }
    chart.svg().polyline(points, "stroke series", taps[i], tap_style(i, taps.size()));
  }
  return chart.str();
}

// The parts of the last step's sum as one stacked bar for each of raw and balanced.
std::string share_bars(const Arm& arm, const std::vector<std::string>& taps) {
  const double left = 70, width = 810, height = 20;
  Svg svg(left + width + 2, 62,
          cat("Shares of the feature loss by tap at the last step of ", arm.name, ", raw and balanced"));
  double y = 4;
  for (const Term which : {Term::raw, Term::balanced}) {
    double sum = 0, x = left;
    for (const auto& [name, loss] : arm.log.back().taps) sum += term(loss, which);
    svg.text(left - 8, y + 14, name_of(which), "tick end");
    for (std::size_t i = 0; i < taps.size() && sum > 0; ++i) {
      const double share = term(arm.log.back().taps.at(taps[i]), which) / sum;
      svg.rect(x, y, share * width, height, "fill part", cat(taps[i], ": ", percent(100 * share)),
               tap_style(i, taps.size()));
      if (share * width > 44) svg.text(x + share * width / 2, y + 14, percent(100 * share, 0), "part-text middle");
      x += share * width;
    }
    y += height + 8;
  }
  return svg.str();
}

std::string taps_legend(const std::vector<std::string>& taps) {
  std::string entries;
  for (std::size_t i = 0; i < taps.size(); ++i) {
    if (taps.size() > kNamedTaps && i != 0 && i + 1 != taps.size() && i != taps.size() / 2) continue;
    entries += legend_entry(cat("<span class=\"swatch\" style=\"", tap_style(i, taps.size()), "\"></span>"), taps[i]);
  }
  return legend(entries);
}

std::string balance_name(const Arm& arm) {
  if (!arm.distill.is_object() || !arm.distill.contains("config")) return "";
  const Json& config = arm.distill["config"];
  if (!config.is_object() || !config.contains("loss") || !config["loss"].is_object()) return "";
  const Json balance = config["loss"].value("balance", Json());
  return balance.is_string() ? balance.get<std::string>() : "";
}

std::string one_arm(const Setting& setting) {
  const Arm& arm = setting.first();
  const auto taps = taps_in_order(arm.log);
  const std::string balance = balance_name(arm);
  return cat("<h3>", swatch(color_class(setting)), escape(setting.label),
             balance.empty() ? "" : cat(" <small>balance <code>", escape(balance), "</code></small>"), "</h3>\n",
             figure(cat(taps_legend(taps), "<div class=\"panels\"><div class=\"panel\">", chart(arm, taps, Term::raw),
                        "</div><div class=\"panel\">", chart(arm, taps, Term::balanced), "</div></div>",
                        scrolling(share_bars(arm, taps), "Shares of the feature loss")),
                    cat("A line is one tap, from the first (violet) to the last (red) in the U-Net. Left: as measured. "
                        "Right: as the training saw it. The bars are the shares at step ",
                        arm.log.back().step, arm.name == setting.label ? "" : cat(", of ", escape(arm.name)), ".")));
}

std::string ratio_text(double ratio) {
  return ratio <= 0 ? "\u2013" : ratio < 1000 ? significant(ratio, 3) : runtime::with_commas(std::llround(ratio));
}

std::string share_row(const Setting& setting, Term which, const char* terms) {
  const Shares s = shares(setting.first().log.back(), which);
  return cat("<tr><th scope=\"row\">", swatch(color_class(setting)), escape(setting.label), "</th><td>", terms,
             "</td><td class=\"number\">", percent(100 * s.largest), "<small>", escape(s.largest_tap),
             "</small></td><td class=\"number\">", percent(100 * s.smallest, s.smallest < 0.001 ? 3 : 1), "<small>",
             escape(s.smallest_tap), "</small></td><td class=\"number\">", ratio_text(s.ratio()), "</td></tr>\n");
}

std::string share_table(const std::vector<const Setting*>& trained) {
  std::string rows;
  for (const Setting* setting : trained) {
    const LogRow& last = setting->first().log.back();
    const bool same = std::all_of(last.taps.begin(), last.taps.end(),
                                  [](const auto& tap) { return tap.second.raw == tap.second.balanced; });
    rows += share_row(*setting, Term::raw, same ? "raw (not balanced)" : "raw");
    if (!same) rows += share_row(*setting, Term::balanced, "balanced");
  }
  return figure(
      scrolling(cat("<table><thead><tr><th scope=\"col\">Arm</th><th scope=\"col\">Terms</th><th scope=\"col\" "
                    "class=\"number\">Largest share</th><th scope=\"col\" class=\"number\">Smallest share</th><th "
                    "scope=\"col\">Largest / smallest</th></tr></thead><tbody>",
                    rows, "</tbody></table>"),
                "Table of shares of the feature loss"),
      "How uneven the feature terms are at the last step. A term with most of the sum decides what is learned.");
}

}  // namespace

Section balance_section(const Material& material) {
  Section section{"balance", "Are the feature losses in balance?", ""};
  std::vector<const Setting*> trained, without;
  for (const Setting& setting : material.settings) {
    if (!setting.first().is_trained) continue;
    const TrainingLog& log = setting.first().log;
    (log.empty() || log.back().taps.empty() ? without : trained).push_back(&setting);
  }
  if (trained.empty()) {
    section.body = missing(without.empty() ? "Left out: no arm was retrained."
                                           : "Left out: no training log with feature losses is there.");
    return section;
  }
  section.body =
      "<p>While retraining, the student\u2019s hidden states are pulled towards the teacher\u2019s at several points "
      "(<em>taps</em>). Features differ in size by orders of magnitude, so "
      "that a plain sum of their errors is decided by a few of them; balancing weighs the terms.</p>\n";
  section.body += share_table(trained);
  std::string shown, folded;
  for (std::size_t i = 0; i < trained.size(); ++i) (i < kShown ? shown : folded) += one_arm(*trained[i]);
  section.body += shown;
  if (!folded.empty()) section.body += details(cat(trained.size() - kShown, " more"), folded);
  for (const Setting* setting : without)
    section.body += missing(cat(setting->label, ": no training log with feature losses is there."));
  return section;
}

}  // namespace laptopdiff::report
