// The page's sections, each a function from what was read to HTML. A section whose material is not there says so.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "experiments/report/curve_file.h"
#include "experiments/report/removals.h"
#include "experiments/report/settings.h"
#include "experiments/report/study_results.h"
#include "experiments/report/svg.h"

namespace laptopdiff::report {

// What all sections read. Settings and specs point into `results`.
struct Material {
  const StudyResults& results;
  std::vector<Setting> settings;
  std::optional<Pruning> pruning;
  std::vector<CurveFile> curves;
};

struct Section {
  std::string id;  // of its heading
  std::string title;
  std::string body;  // HTML
};

// "laptop keeps 52.1 % of the parameters and loses 4.2 % of CLIP score against the teacher." for the settings that
// hold most, as HTML.
std::string summary_text(const Material& material);
// The settings as cards: share of parameters kept, and what that cost.
std::string summary_cards(const Material& material);

Section quality_section(const Material& material);     // every metric of every setting
Section importance_section(const Material& material);  // scores in U-Net order
Section map_section(const Material& material);         // which layers each spec removes
Section audit_section(const Material& material);       // predicted against true loss
Section balance_section(const Material& material);     // feature loss of each tap, raw and balanced
Section curves_section(const Material& material);      // metrics and predicted losses over size, losses over steps
Section images_section(const Material& material);      // the same seeds in every arm
Section making_section(const Material& material);      // stages, counts, hashes, the study

// Of a solver's curve files, a chart a resource; empty without files.
std::string predicted_curves(const std::vector<CurveFile>& curves);

// Of a metric's axis.
Scaling scaling_of(const MetricInfo& info);

// A coloured swatch of a setting, and of a kind of unit, for legends and tables.
std::string swatch(const std::string& classes);
std::string color_class(const Setting& setting);  // "c0" (teacher) to "c8"

}  // namespace laptopdiff::report
