// The map of a U-Net: stages as columns down, middle and up, a cell a unit, one map a spec.
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

constexpr double kColumn = 60, kCellWidth = 44, kLevel = 40, kHead = 34, kGap = 3;
constexpr std::size_t kTall = 12;  // columns with more cells get flatter ones
constexpr std::size_t kShown = 6;  // further maps are folded away

const char* letter(unet::UnitKind kind) {
  return kind == unet::UnitKind::resnet ? "R" : kind == unet::UnitKind::transformer ? "T" : "A";
}

std::string stage_name(const std::string& path) {
  if (path.rfind("down_blocks.", 0) == 0) return "down " + path.substr(12);
  if (path.rfind("up_blocks.", 0) == 0) return "up " + path.substr(10);
  return path == "mid_block" ? "mid" : path;
}

class Map {
 public:
  Map(const Pruning& pruning, const SpecGroup& group, const pruning::Scores* scores)
      : pruning_(pruning), group_(group), scores_(scores), columns_(pruning.base.stages.size()) {
    for (std::size_t i = 0; i < pruning.units.size(); ++i) {
      columns_[static_cast<std::size_t>(pruning.base.steps[static_cast<std::size_t>(pruning.units[i].first)].stage)]
          .push_back(i);
    }
    std::size_t longest = 1;
    for (const auto& column : columns_) longest = std::max(longest, column.size());
    cell_ = longest > kTall ? 12 : 19;
    find_strength();
  }

  std::string draw() {
    Svg svg(kColumn * static_cast<double>(columns_.size()) + 4, height(), label());
    draw_skips(svg);
    for (std::size_t stage = 0; stage < columns_.size(); ++stage) draw_column(svg, stage);
    return svg.str();
  }

 private:
  int downs() const { return static_cast<int>(pruning_.base.config.down.size()); }
  // Column 0 of down and the last of up are at level 0; the middle lies deepest.
  int level(std::size_t stage) const {
    const int index = static_cast<int>(stage), last = static_cast<int>(columns_.size()) - 1;
    return index < downs() ? index : std::min(last - index, downs());
  }
  double top(std::size_t stage) const { return kHead + kLevel * level(stage); }
  double left(std::size_t stage) const { return 2 + kColumn * static_cast<double>(stage) + (kColumn - kCellWidth) / 2; }
  double height() const {
    double bottom = 0;
    for (std::size_t stage = 0; stage < columns_.size(); ++stage) {
      bottom = std::max(bottom, top(stage) + static_cast<double>(columns_[stage].size()) * (cell_ + kGap));
    }
    return bottom + 4;
  }
  std::string label() const {
    return cat("Map of the U-Net of ", runtime::join(group_.labels), ": ",
               pruning_.units.size() - static_cast<std::size_t>(group_.removed()), " of ", pruning_.units.size(),
               " layers are kept");
  }

  // 0 for the least important unit, 1 for the most, by the logarithm of the score.
  void find_strength() {
    strength_.assign(pruning_.units.size(), 0.5);
    if (scores_ == nullptr) return;
    std::vector<double> values;
    for (const pruning::Estimate& score : scores_->unit_scores) values.push_back(score.value.value_or(0));
    const Axis axis = axis_around("", Scaling::log, values);
    for (std::size_t i = 0; i < strength_.size(); ++i) strength_[i] = axis.at(values[i]);
  }

  // The connections that carry a down stage's outputs to its up stage.
  void draw_skips(Svg& svg) const {
    for (int depth = 0; depth < downs(); ++depth) {
      const auto from = static_cast<std::size_t>(depth), to = columns_.size() - 1 - from;
      if (to <= from) continue;
      const double y = top(from) + cell_ / 2;
      svg.line(left(from) + kCellWidth + 3, y, left(to) - 4, y, "skip");
      svg.line(left(to) - 9, y - 4, left(to) - 4, y, "skip-head");
      svg.line(left(to) - 9, y + 4, left(to) - 4, y, "skip-head");
    }
  }

  void draw_column(Svg& svg, std::size_t stage) const {
    const unet::Stage& about = pruning_.base.stages[stage];
    const double x = left(stage), middle = x + kCellWidth / 2;
    svg.text(middle, top(stage) - 18, stage_name(about.path), "strong middle");
    svg.text(middle, top(stage) - 6, cat(about.channels, " ch"), "tick middle");
    double y = top(stage);
    for (const std::size_t unit : columns_[stage]) {
      draw_cell(svg, unit, x, y);
      y += cell_ + kGap;
    }
  }

  std::string tooltip(std::size_t unit) const {
    const unet::Unit& about = pruning_.units[unit];
    std::string text = cat(about.layer, "\n", unet::unit_name(about.kind), ", ", runtime::with_commas(about.params),
                           " parameters\n", unet::fate_name(group_.fates[unit]));
    if (scores_ != nullptr && scores_->unit_scores[unit].value)
      text += cat("\nscore ", significant(*scores_->unit_scores[unit].value, 3));
    return text;
  }

  void draw_cell(Svg& svg, std::size_t unit, double x, double y) const {
    const unet::Fate fate = group_.fates[unit];
    const unet::UnitKind kind = pruning_.units[unit].kind;
    const bool stays = fate == unet::Fate::kept || fate == unet::Fate::partly;
    const std::string classes = fate == unet::Fate::dropped ? "cell dropped"
                                : stays                     ? cat("cell fill ", unet::unit_name(kind))
                                                            : cat("cell bypassed ", unet::unit_name(kind));
    svg.rect(x, y, kCellWidth, cell_, classes, tooltip(unit),
             stays ? cat("fill-opacity:", 0.16 + 0.46 * std::round(strength_[unit] * 50) / 50) : "");
    if (fate == unet::Fate::dropped) return;
    if (fate != unet::Fate::kept) svg.line(x + 1, y + cell_ - 1, x + kCellWidth - 1, y + 1, "cross");
    if (fate == unet::Fate::bypassed) svg.line(x + 1, y + 1, x + kCellWidth - 1, y + cell_ - 1, "cross");
    svg.text(x + kCellWidth / 2, y + cell_ / 2 + 4, letter(kind), stays ? "cell-text middle" : "cell-text gone middle");
  }

  const Pruning& pruning_;
  const SpecGroup& group_;
  const pruning::Scores* scores_;
  std::vector<std::vector<std::size_t>> columns_;  // a stage -> its units
  std::vector<double> strength_;
  double cell_ = 19;
};

std::string counts(const Pruning& pruning, const SpecGroup& group) {
  std::string text;
  for (const auto kind : {unet::UnitKind::resnet, unet::UnitKind::transformer, unet::UnitKind::attention}) {
    int all = 0, gone = 0;
    for (std::size_t i = 0; i < pruning.units.size(); ++i) {
      if (pruning.units[i].kind != kind) continue;
      ++all;
      gone += group.fates[i] != unet::Fate::kept ? 1 : 0;
    }
    if (all > 0)
      text += cat(text.empty() ? "" : ", ", gone, " of ", all, " ", unet::unit_name(kind), all == 1 ? "" : "s");
  }
  return text;
}

std::string one_map(const Pruning& pruning, const SpecGroup& group, const pruning::Scores* scores) {
  const double base = static_cast<double>(pruning.base.params());
  const std::string caption =
      cat("<strong>", group.letter, ": ", escape(runtime::join(group.labels)),
          "</strong>. Removed: ", counts(pruning, group), ". Kept: ", short_count(group.params), " parameters",
          base > 0 ? cat(" (", percent(100 * static_cast<double>(group.params) / base), ")") : "", ".");
  return figure(scrolling(Map(pruning, group, scores).draw(), "Map of " + runtime::join(group.labels)), caption);
}

}  // namespace

Section map_section(const Material& material) {
  Section section{"map", "Which layers are gone", ""};
  if (!material.pruning || material.pruning->specs.empty()) {
    section.body = missing("Left out: no arm's spec.json is there.");
    return section;
  }
  const Pruning& pruning = *material.pruning;
  const pruning::Scores* scores = material.results.scores ? &*material.results.scores : nullptr;
  std::string shown, folded;
  for (std::size_t i = 0; i < pruning.specs.size(); ++i)
    (i < kShown ? shown : folded) += one_map(pruning, pruning.specs[i], scores);
  section.body =
      cat("<p>A column is a stage of the U-Net: the picture goes down at the left, through the middle, and up at the "
          "right; dashed arrows are the skips. Each "
          "cell is a removable layer (R\u00A0ResNet, T\u00A0transformer block, A\u00A0attention), in order from top to "
          "bottom",
          scores != nullptr ? ", the stronger its colour the higher its score" : "",
          ". Point at a cell for its name. A <em>crossed</em> cell is bypassed: its residual branch is gone, the skip "
          "around it stays. A <em>hatched</em> cell is "
          "dropped, along with the skip it fed.</p>\n");
  section.body += cat("<div class=\"maps\">", shown, "</div>\n");
  if (!folded.empty())
    section.body += details(cat(pruning.specs.size() - kShown, " more"), cat("<div class=\"maps\">", folded, "</div>"));
  return section;
}

}  // namespace laptopdiff::report
