// Predicted against true loss: log-log scatters with the diagonal, and the numbers of agreement.
#include <algorithm>

#include "experiments/report/html.h"
#include "experiments/report/numbers.h"
#include "experiments/report/sections.h"
#include "experiments/report/svg.h"
#include "runtime/error.h"

namespace laptopdiff::report {
namespace {

using runtime::cat;

constexpr const char* kNotFinite = "not finite";  // a mask that has no true loss

struct Prediction {
  const char* key;  // in `agreement`
  const char* name;
  std::optional<double> AuditedMask::*value;
};
constexpr Prediction kPredictions[] = {{"additive", "Additive", &AuditedMask::additive},
                                       {"gram", "Gram", &AuditedMask::gram},
                                       {"both_fitted", "both, fitted", &AuditedMask::both_fitted}};

struct Kind {
  const char* name;
  const char* plural;
  Shape shape;
};
constexpr Kind kKinds[] = {{"solver", "chosen by a solver", Shape::circle},
                           {"random", "random masks", Shape::triangle},
                           {"preset", "handcrafted presets", Shape::square},
                           {"spec", "other specs", Shape::diamond}};

Shape shape_of(const std::string& kind) {
  for (const Kind& row : kKinds) {
    if (kind == row.name) return row.shape;
  }
  return Shape::diamond;
}

std::string class_of(const std::string& kind) {
  const bool known =
      std::any_of(std::begin(kKinds), std::end(kKinds), [&](const Kind& row) { return kind == row.name; });
  return known ? "audit-" + kind : "faint";
}

bool has(const AuditFile& audit, const Prediction& prediction) {
  return std::any_of(audit.rows.begin(), audit.rows.end(),
                     [&](const AuditedMask& row) { return (row.*prediction.value).has_value(); });
}

// Both charts share one range, so that they can be compared at a glance.
Axis common_axis(const AuditFile& audit) {
  std::vector<double> values;
  for (const AuditedMask& row : audit.rows) {
    if (row.true_loss) values.push_back(*row.true_loss);
    for (const Prediction& prediction : kPredictions) {
      if (row.*prediction.value) values.push_back(*(row.*prediction.value));
    }
  }
  return axis_around("", Scaling::log, values);
}

std::string scatter(const AuditFile& audit, const Prediction& prediction, const Axis& axis) {
  Axis x = axis, y = axis;
  x.label = cat("predicted loss (", prediction.name, ")");
  y.label = "true loss";
  Chart chart(480, 420, x, y,
              cat(prediction.name, " prediction against true loss of ", audit.rows.size(),
                  " masks, both logarithmic; agreement is in the table below"));
  chart.svg().line(chart.x(axis.low), chart.y(axis.low), chart.x(axis.high), chart.y(axis.high), "reference");
  for (const AuditedMask& row : audit.rows) {
    const auto& predicted = row.*prediction.value;
    if (!predicted || *predicted <= 0 || !row.true_loss || *row.true_loss <= 0) continue;
    chart.svg().mark(shape_of(row.kind), chart.x(*predicted), chart.y(*row.true_loss), 5,
                     cat("point ", class_of(row.kind)),
                     cat(row.name, "\n", percent(100 * row.keep), " of the parameters kept\npredicted ",
                         significant(*predicted, 3), ", true ", significant(*row.true_loss, 3)));
  }
  return cat("<div class=\"panel\">", chart.str(), "</div>");
}

std::string number(const std::optional<double>& value, int digits = 3) {
  return value ? significant(*value, digits) : "\u2013";
}

std::string agreement_table(const AuditFile& audit) {
  std::string rows;
  for (const auto& [key, name] : {std::pair{"additive", "Additive, all masks"},
                                  {"gram", "Gram, all masks"},
                                  {"both_fitted", "Both, fitted to measured masks, all masks"},
                                  {"additive_random", "Additive, random masks only"},
                                  {"gram_random", "Gram, random masks only"},
                                  {"both_fitted_random", "Both, fitted, random masks only"}}) {
    const auto found = audit.agreement.find(key);
    if (found == audit.agreement.end() || found->second.rows == 0) continue;
    const AgreementNumbers& a = found->second;
    rows += cat("<tr><th scope=\"row\">", name, "</th><td class=\"number\">", a.rows, "</td><td class=\"number\">",
                number(a.spearman), "</td><td class=\"number\">", number(a.r2_log), "</td><td class=\"number\">",
                a.within_quarter ? percent(100 * *a.within_quarter) : "\u2013", "</td><td class=\"number\">",
                number(a.ratio_median), "<small>", number(a.ratio_min), " to ", number(a.ratio_max),
                "</small></td></tr>\n");
  }
  if (rows.empty()) return missing("audit.json has no numbers of agreement.");
  return figure(
      scrolling(
          cat("<table><thead><tr><th scope=\"col\">Prediction</th><th scope=\"col\" class=\"number\">Masks</th><th "
              "scope=\"col\" class=\"number\">Spearman</th><th scope=\"col\">R\u00B2 of the "
              "logarithms</th><th scope=\"col\" class=\"number\">Within 25 %</th><th scope=\"col\">True / "
              "predicted<small>median, least to "
              "greatest</small></th></tr></thead><tbody>",
              rows, "</tbody></table>"),
          "Agreement of predicted and true loss"),
      "Spearman 1: the prediction puts masks in the right order, which is all that a solver needs. R\u00B2 1 and a "
      "ratio of 1: it gets their size right too; so it does for the share of masks within 25 % of the true loss.");
}

std::string mask_table(const AuditFile& audit) {
  std::string rows;
  for (const AuditedMask& row : audit.rows) {
    rows += cat("<tr><th scope=\"row\">", escape(row.name), "</th><td>", escape(row.kind), "</td><td class=\"number\">",
                percent(100 * row.keep), "</td><td class=\"number\">", number(row.additive),
                "</td><td class=\"number\">", number(row.gram), "</td><td class=\"number\">",
                row.true_loss ? cat(significant(*row.true_loss, 3), " \u00B1 ", significant(row.standard_error, 2))
                              : std::string(kNotFinite),
                "</td></tr>\n");
  }
  return details(
      cat("All ", audit.rows.size(), " masks"),
      scrolling(cat("<table><thead><tr><th scope=\"col\">Mask</th><th scope=\"col\">Kind</th><th scope=\"col\" "
                    "class=\"number\">Kept</th><th scope=\"col\" class=\"number\">Additive</th><th scope=\"col\">Gram"
                    "</th><th scope=\"col\">True \u00B1 standard error</th></tr></thead><tbody>",
                    rows, "</tbody></table>"),
                "All masks of the audit"));
}

std::string pair_table(const AuditFile& audit) {
  if (audit.pairs.empty()) return "";
  std::string rows;
  for (const InteractingPair& pair : audit.pairs) {
    rows += cat("<tr><td>", breakable(pair.a), "</td><td>", breakable(pair.b), "</td><td class=\"number\">",
                significant(pair.inner, 3), "</td><td class=\"number\">", significant(pair.cosine, 2), "</td></tr>\n");
  }
  return details(
      cat("The ", audit.pairs.size(), " pairs of layers that interact most"),
      scrolling(cat("<table><thead><tr><th scope=\"col\">Layer</th><th scope=\"col\">and layer</th><th scope=\"col\" "
                    "class=\"number\">Inner product</th><th scope=\"col\" class=\"number\">Cosine<small>above 0: worse "
                    "together than the sum</small></th></tr></thead><tbody>",
                    rows, "</tbody></table>"),
                "Pairs of layers that interact most"));
}

// Presets drop skips, which no sum of bypasses predicts; their true loss is still worth a line.
std::string presets(const AuditFile& audit) {
  std::vector<std::string> list;
  for (const AuditedMask& row : audit.rows) {
    if (!row.additive && !row.gram) {
      list.push_back(cat(escape(row.name), " (", percent(100 * row.keep), " kept) ",
                         row.true_loss ? significant(*row.true_loss, 3) : std::string(kNotFinite)));
    }
  }
  if (list.empty()) return "";
  return cat("<p>Without a prediction, because they do not consist of scored layers, but measured too: ",
             runtime::join(list, "; "), ".</p>\n");
}

}  // namespace

Section audit_section(const Material& material) {
  Section section{"audit", "Can the scores be trusted?", ""};
  if (!material.results.audit || material.results.audit->rows.empty()) {
    section.body = missing("Left out: the study has no audit, so predicted and true loss were not compared.");
    return section;
  }
  const AuditFile& audit = *material.results.audit;
  std::string entries, charts;
  for (const Kind& kind : kKinds) {
    const bool any = std::any_of(audit.rows.begin(), audit.rows.end(), [&](const AuditedMask& row) {
      return row.kind == kind.name && (row.additive || row.gram);
    });
    if (!any) continue;
    Svg mark(14, 14, kind.plural);
    mark.mark(kind.shape, 7, 7, 5, cat("point audit-", kind.name));
    entries += legend_entry(mark.str(), kind.plural);
  }
  entries += legend_entry("<span class=\"dash\"></span>", "prediction is exact");
  for (const Prediction& prediction : kPredictions) {
    if (has(audit, prediction)) charts += scatter(audit, prediction, common_axis(audit));
  }
  section.body =
      "<p>The solver believes that the loss of removing many layers can be told from removing each alone "
      "(<em>additive</em>), or from pairs of them (<em>Gram</em>), or from both with a correction that was fitted to a "
      "few measured masks (<em>fitted</em>). Here that is "
      "measured: whole sets of layers were removed, and the true change of the output compared with the "
      "prediction.</p>\n";
  if (!charts.empty()) {
    section.body += figure(cat(legend(entries), "<div class=\"panels\">", charts, "</div>"),
                           "Each mark is a set of removed layers. On the dashed diagonal the prediction is exact; "
                           "above it, the truth is worse than predicted.");
  }
  section.body += agreement_table(audit) + presets(audit) + pair_table(audit) + mask_table(audit);
  return section;
}

}  // namespace laptopdiff::report
