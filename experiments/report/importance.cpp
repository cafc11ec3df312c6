// Scores in U-Net order: a bar a unit, and beside it what each spec did to it.
#include <algorithm>

#include "experiments/report/html.h"
#include "experiments/report/numbers.h"
#include "experiments/report/sections.h"
#include "experiments/report/svg.h"
#include "runtime/error.h"
#include "runtime/progress.h"

namespace laptopdiff::report {
namespace {

using runtime::cat;

constexpr double kName = 150, kBars = 640, kColumn = 24, kRow = 16, kStageGap = 22, kTop = 26, kBottom = 46;

std::string tooltip(const unet::Unit& unit, const pruning::Estimate& score) {
  const std::string text =
      score.value ? cat("score ", significant(*score.value), " \u00B1 ", significant(score.standard_error, 2))
                  : "no score: " + score.why_null;
  return cat(unit.layer, "\n", unet::unit_name(unit.kind), ", ", runtime::with_commas(unit.params), " parameters\n",
             text);
}

Axis score_axis(const pruning::Scores& scores) {
  std::vector<double> values;
  for (const pruning::Estimate& score : scores.unit_scores) {
    if (!score.value) continue;
    values.push_back(*score.value);
    values.push_back(*score.value + score.standard_error);
  }
  Axis axis = axis_around("", Scaling::log, values);
  axis.low /= 1.5;  // the least important bar must be seen too
  return axis;
}

// Draws the rows; `y` of each unit is decided here.
class ImportanceChart {
 public:
  ImportanceChart(const Pruning& pruning, const pruning::Scores& scores)
      : pruning_(pruning), scores_(scores), axis_(score_axis(scores)), svg_(width(), height(), label()) {}

  std::string draw() {
    draw_axis();
    double y = kTop;
    int stage = -1;
    for (std::size_t i = 0; i < pruning_.units.size(); ++i) {
      const int own = pruning_.base.steps[static_cast<std::size_t>(pruning_.units[i].first)].stage;
      if (own != stage) {
        stage = own;
        y += kStageGap;
        svg_.text(0, y - 5, pruning_.base.stages[static_cast<std::size_t>(stage)].path, "strong");
        svg_.line(0, y - 1, width(), y - 1, "grid");
      }
      draw_unit(i, y);
      y += kRow;
    }
    return svg_.str();
  }

 private:
  double width() const { return kName + kBars + 16 + kColumn * static_cast<double>(pruning_.specs.size()); }
  double height() const {
    return kTop + kBottom + kRow * static_cast<double>(pruning_.units.size()) +
           kStageGap * static_cast<double>(stages());
  }
  std::size_t stages() const {
    std::size_t count = 0;
    int last = -1;
    for (const unet::Unit& unit : pruning_.units) {
      const int stage = pruning_.base.steps[static_cast<std::size_t>(unit.first)].stage;
      count += stage != last ? 1 : 0;
      last = stage;
    }
    return count;
  }
  std::string label() const {
    return cat("Bars of the scores of ", pruning_.units.size(),
               " layers in the order a picture passes them, on a logarithmic scale, with marks for the layers that "
               "each arm removes");
  }
  double x(double value) const { return kName + axis_.at(value) * kBars; }

  void draw_axis() {
    const double bottom = height() - kBottom;
    for (const auto& [value, text] : axis_.ticks()) {
      svg_.line(x(value), kTop, x(value), bottom, "grid");
      svg_.text(x(value), kTop - 8, text, "tick middle");
      svg_.text(x(value), bottom + 16, text, "tick middle");
    }
    svg_.text(kName + kBars / 2, bottom + 36,
              "score: mean squared change of the output when this layer alone is removed", "label middle");
    for (std::size_t s = 0; s < pruning_.specs.size(); ++s)
      svg_.text(column(s), kTop - 8, pruning_.specs[s].letter, "strong middle");
  }
  double column(std::size_t spec) const { return kName + kBars + 16 + kColumn * (static_cast<double>(spec) + 0.5); }

  void draw_unit(std::size_t i, double y) {
    const unet::Unit& unit = pruning_.units[i];
    const pruning::Estimate& score = scores_.unit_scores[i];
    const double middle = y + kRow / 2;
    svg_.text(kName - 8, middle + 4, short_name(pruning_, i), "tick end");
    const double end = score.value ? std::max(x(*score.value), kName + 1.5) : kName + 1.5;
    svg_.rect(kName, y + 2, end - kName, kRow - 4, cat("bar fill ", unet::unit_name(unit.kind)), tooltip(unit, score));
    if (!score.value) svg_.text(kName + 6, middle + 4, "not finite", "tick");
    if (score.value && score.standard_error > 0) {
      const double low = x(*score.value - score.standard_error), high = x(*score.value + score.standard_error);
      svg_.line(low, middle, high, middle, "whisker");
      svg_.line(low, middle - 3, low, middle + 3, "whisker");
      svg_.line(high, middle - 3, high, middle + 3, "whisker");
    }
    for (std::size_t s = 0; s < pruning_.specs.size(); ++s) draw_fate(pruning_.specs[s].fates[i], column(s), middle);
  }

  void draw_fate(unet::Fate fate, double x, double y) {
    if (fate == unet::Fate::kept) return svg_.mark(Shape::circle, x, y, 1.5, "faint");
    if (fate == unet::Fate::dropped) return svg_.rect(x - 5, y - 5, 10, 10, "dropped");
    svg_.line(x - 4.5, y - 4.5, x + 4.5, y + 4.5, "cross");
    if (fate == unet::Fate::bypassed) svg_.line(x - 4.5, y + 4.5, x + 4.5, y - 4.5, "cross");
  }

  const Pruning& pruning_;
  const pruning::Scores& scores_;
  Axis axis_;
  Svg svg_;
};

bool any_fate(const Pruning& pruning, unet::Fate fate) {
  return std::any_of(pruning.specs.begin(), pruning.specs.end(), [&](const SpecGroup& group) {
    return std::find(group.fates.begin(), group.fates.end(), fate) != group.fates.end();
  });
}

std::string kinds_legend(const Pruning& pruning) {
  std::string entries;
  for (const auto kind : {unet::UnitKind::resnet, unet::UnitKind::transformer, unet::UnitKind::attention}) {
    const bool any = std::any_of(pruning.units.begin(), pruning.units.end(),
                                 [&](const unet::Unit& unit) { return unit.kind == kind; });
    if (any) entries += legend_entry(swatch(unet::unit_name(kind)), unet::unit_name(kind));
  }
  if (any_fate(pruning, unet::Fate::bypassed))
    entries += legend_entry("<span class=\"sign\">\u2715</span>", "bypassed: the layer goes, its skip stays");
  if (any_fate(pruning, unet::Fate::partly))
    entries += legend_entry("<span class=\"sign\">\u2572</span>", "partly removed");
  if (any_fate(pruning, unet::Fate::dropped))
    entries += legend_entry("<span class=\"swatch hatched\"></span>", "dropped: gone with its skip");
  for (const SpecGroup& group : pruning.specs) {
    entries += legend_entry(cat("<span class=\"sign\">", group.letter, "</span>"), runtime::join(group.labels));
  }
  return legend(entries);
}

// The extremes in words.
std::string extremes(const Pruning& pruning, const pruning::Scores& scores) {
  std::size_t least = scores.units.size(), most = scores.units.size();
  for (std::size_t i = 0; i < scores.units.size(); ++i) {
    const auto& value = scores.unit_scores[i].value;
    if (!value) continue;
    if (least == scores.units.size() || *value < *scores.unit_scores[least].value) least = i;
    if (most == scores.units.size() || *value > *scores.unit_scores[most].value) most = i;
  }
  if (least == scores.units.size()) return "";
  return cat("<p>The most important layer is <code>", escape(pruning.units[most].layer), "</code> (",
             significant(*scores.unit_scores[most].value, 3), "), the least important <code>",
             escape(pruning.units[least].layer), "</code> (", significant(*scores.unit_scores[least].value, 3),
             ").</p>\n");
}

}  // namespace

Section importance_section(const Material& material) {
  Section section{"importance", "What each layer is worth", ""};
  if (!material.results.scores || !material.pruning) {
    section.body = missing("Left out: the study's scores.json is not there.");
    return section;
  }
  const pruning::Scores& scores = *material.results.scores;
  section.body = extremes(*material.pruning, scores);
  section.body += figure(cat(kinds_legend(*material.pruning),
                             scrolling(ImportanceChart(*material.pruning, scores).draw(), "Chart of layer importance")),
                         cat("Criterion <code>", escape(scores.criterion), "</code> over ", scores.samples,
                             " calibration samples, logarithmic scale; whiskers are one standard error. Layers stand "
                             "in the order a picture passes them. The "
                             "lettered columns at the right mark what each arm removes: cheap, short bars go first."));
  return section;
}

}  // namespace laptopdiff::report
