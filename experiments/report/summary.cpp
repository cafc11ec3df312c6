// The page's first lines: what the numbers say, from results.json alone.
#include <algorithm>
#include <cmath>

#include "experiments/report/html.h"
#include "experiments/report/numbers.h"
#include "experiments/report/sections.h"
#include "runtime/error.h"

namespace laptopdiff::report {
namespace {

using runtime::cat;

constexpr std::size_t kSentences = 4;
constexpr std::size_t kCards = 8;

// The first metric that is measured in any setting with a decline.
const MetricInfo* leading_metric(const Material& material) {
  for (const MetricInfo& info : metric_table()) {
    for (const Setting& setting : material.settings) {
      if (!setting.first().is_teacher() && setting.declines.contains(info.key)) return &info;
    }
  }
  return nullptr;
}

std::string change(const MetricInfo& info, double decline) {
  const std::string size = percent(std::abs(decline));
  if (!info.higher_is_better) return cat(decline >= 0 ? "raises " : "lowers ", info.name, " by ", size);
  return cat(decline >= 0 ? "loses " : "gains ", size, decline >= 0 ? " of the " : " on the ", info.name);
}

std::vector<const Setting*> students(const Material& material, const MetricInfo* metric) {
  std::vector<const Setting*> list;
  for (const Setting& setting : material.settings) {
    if (!setting.first().is_teacher()) list.push_back(&setting);
  }
  if (metric == nullptr) return list;
  const auto decline = [&](const Setting* setting) {
    const auto found = setting->declines.find(metric->key);
    return found == setting->declines.end() ? 1e300 : found->second.mean;
  };
  std::stable_sort(list.begin(), list.end(),
                   [&](const Setting* a, const Setting* b) { return decline(a) < decline(b); });
  return list;
}

std::string kept(const Material& material, const Setting& setting) {
  const Arm* teacher = material.results.teacher();
  if (teacher == nullptr || teacher->params <= 0) return cat("has ", short_count(setting.params), " parameters");
  return cat("keeps ", percent(100.0 * static_cast<double>(setting.params) / static_cast<double>(teacher->params)),
             " of the parameters");
}

// True where the teacher's interval holds the setting's value: a difference that other pictures might not show.
bool in_noise(const Material& material, const Setting& setting, const MetricInfo& info) {
  const Arm* teacher = material.results.teacher();
  if (teacher == nullptr || !teacher->metrics.contains(info.key) || !setting.metrics.contains(info.key)) return false;
  const auto& interval = teacher->metrics.at(info.key).interval;
  const double value = setting.metrics.at(info.key).mean;
  return interval && interval->low <= value && value <= interval->high;
}

std::string sentence(const Material& material, const Setting& setting, const MetricInfo* metric, bool is_first) {
  std::string text = cat("<strong>", escape(setting.label), "</strong> ", kept(material, setting));
  const bool measured = metric != nullptr && setting.declines.contains(metric->key);
  if (!setting.first().is_trained) text += measured ? ", is not retrained," : " and is not retrained";
  if (measured) {
    text +=
        cat(" and ", change(*metric, setting.declines.at(metric->key).mean), is_first ? " against the teacher" : "");
    if (in_noise(material, setting, *metric)) text += " (inside the teacher\u2019s own 95\u00A0% interval)";
  }
  return text + ".";
}

std::string card(const Material& material, const Setting& setting) {
  const Arm* teacher = material.results.teacher();
  std::string rows;
  const auto row = [&](const std::string& value, const std::string& name) {
    rows += cat("<div><dt>", name, "</dt><dd>", value, "</dd></div>");
  };
  const bool compare = teacher != nullptr && teacher->params > 0 && teacher->macs > 0;
  row(compare ? percent(100.0 * static_cast<double>(setting.params) / static_cast<double>(teacher->params), 0)
              : short_count(setting.params),
      compare ? "of the parameters" : "parameters");
  for (const MetricInfo& info : metric_table()) {
    if (const auto found = setting.declines.find(info.key);
        found != setting.declines.end() && !setting.first().is_teacher()) {
      // Shown as a change of the metric itself: a higher FID is "+".
      const double shown = info.higher_is_better ? -found->second.mean : found->second.mean;
      row(cat("<span class=\"",
              found->second.mean > 0   ? "worse"
              : found->second.mean < 0 ? "better"
                                       : "same",
              "\">", shown > 0 ? "+" : "", percent(shown, std::abs(shown) >= 100 ? 0 : 1), "</span>"),
          cat(info.name));
    } else if (const auto metric = setting.metrics.find(info.key); metric != setting.metrics.end()) {
      row(cat(significant(metric->second.mean * info.factor, 3), info.unit), info.name);
    }
  }
  const char* what = setting.first().is_teacher() ? "the original model"
                     : setting.first().is_trained ? "pruned and retrained"
                                                  : "pruned, not retrained";
  return cat("<article class=\"card ", color_class(setting), "\"><p class=\"name\">", breakable(setting.label),
             "</p><p>", what, "</p><dl>", rows, "</dl></article>\n");
}

}  // namespace

std::string swatch(const std::string& classes) { return cat("<span class=\"swatch ", classes, "\"></span>"); }

std::string color_class(const Setting& setting) { return cat("c", setting.color); }

std::string summary_text(const Material& material) {
  const MetricInfo* metric = leading_metric(material);
  const auto list = students(material, metric);
  std::string text;
  for (std::size_t i = 0; i < std::min(kSentences, list.size()); ++i)
    text += sentence(material, *list[i], metric, i == 0) + " ";
  if (list.size() > kSentences) text += cat(list.size() - kSentences, " more below.");
  return list.empty() ? missing("The study has no pruned arm, so there is nothing to compare.")
                      : cat("<p class=\"lead\">", text, "</p>\n");
}

std::string summary_cards(const Material& material) {
  if (material.settings.size() > kCards) return "";  // the table says it better
  std::string cards;
  for (const Setting& setting : material.settings) cards += card(material, setting);
  return cat("<div class=\"cards\">", cards, "</div>\n");
}

}  // namespace laptopdiff::report
