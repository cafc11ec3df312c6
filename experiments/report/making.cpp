// How the numbers were made: stages with their time, counts, hashes, and the study itself.
#include <algorithm>
#include <set>

#include "experiments/report/html.h"
#include "experiments/report/numbers.h"
#include "experiments/report/sections.h"
#include "runtime/error.h"

namespace laptopdiff::report {
namespace {

using runtime::cat;

constexpr std::size_t kHashShown = 16;

struct StageInfo {
  const char* verb;
  const char* what;
};
constexpr StageInfo kStages[] = {
    {"calibrate", "fixed inputs of the U-Net from real pictures and captions"},
    {"score", "what each layer is worth, by leaving it out"},
    {"audit", "predicted against true loss"},
    {"solve", "which layers to remove for the budget"},
    {"distill", "retraining the pruned model against the original"},
    {"sample", "pictures from prompts"},
    {"evaluate", "metrics of the pictures"},
};

std::string stage_table(const StudyResults& results) {
  double total = 0;
  for (const auto& [verb, seconds] : results.seconds) total += seconds;
  if (results.seconds.empty()) return missing("The time of the stages is not in results.json.");
  std::string rows;
  for (const StageInfo& stage : kStages) {
    const auto found = results.seconds.find(stage.verb);
    if (found == results.seconds.end() || found->second <= 0) continue;
    const double share = total > 0 ? 100 * found->second / total : 0;
    rows +=
        cat("<tr><th scope=\"row\"><code>", stage.verb, "</code></th><td>", stage.what, "</td><td class=\"number\">",
            duration(found->second), "</td><td><span class=\"share\" style=\"width:", std::max(1.0, share),
            "px\"></span> ", percent(share, 0), "</td></tr>\n");
  }
  rows += cat("<tr><th scope=\"row\">all</th><td></td><td class=\"number\">", duration(total), "</td><td></td></tr>\n");
  return figure(scrolling(cat("<table><thead><tr><th scope=\"col\">Stage</th><th scope=\"col\">What it does</th><th "
                              "scope=\"col\">Time, all arms</th><th scope=\"col\">Share</th></tr></thead><tbody>",
                              rows, "</tbody></table>"),
                          "Table of stages"),
                "Wall time of the runs that made what is shown here; stages that arms share ran once.");
}

// Facts as rows of two columns, each once: arms share most of them.
class Facts {
 public:
  void add(const std::string& name, const std::string& value) {
    if (!value.empty() && seen_.insert(name + "\n" + value).second)
      rows_ += cat("<tr><th scope=\"row\">", escape(name), "</th><td class=\"fact\">", escape(value), "</td></tr>\n");
  }
  void add_hash(const std::string& name, const std::string& sha256) {
    if (!sha256.empty())
      add(name, "SHA-256 " + sha256.substr(0, kHashShown) + (sha256.size() > kHashShown ? "\u2026" : ""));
  }
  std::string table() const {
    return scrolling(cat("<table><tbody>", rows_, "</tbody></table>"), "Table of counts and hashes");
  }

 private:
  std::string rows_;
  std::set<std::string> seen_;
};

std::string text_at(const Json& json, const std::string& key) {
  if (!json.is_object() || !json.contains(key)) return "";
  const Json& value = json[key];
  return value.is_string() ? value.get<std::string>() : value.is_number() ? value.dump() : "";
}

const Json& child(const Json& json, const std::string& key) {
  static const Json kNone;
  return json.is_object() && json.contains(key) ? json[key] : kNone;
}

void add_evaluation(Facts& facts, const Json& evaluation) {
  const Json& images = child(evaluation, "images");
  if (!text_at(images, "count").empty())
    facts.add("Pictures of each arm", cat(text_at(images, "count"), " of ", text_at(images, "size")));
  if (const std::string count = text_at(child(evaluation, "reference"), "count"); !count.empty())
    facts.add("Real pictures for comparison", count);
  facts.add_hash("Real pictures", text_at(child(evaluation, "reference"), "digest"));
  facts.add_hash("Prompts", text_at(child(evaluation, "prompts"), "sha256"));
  const Json& models = child(evaluation, "models");
  if (!models.is_object()) return;
  for (const auto& [name, about] : models.items()) {
    const Json& weights = child(about, "weights_sha256");
    if (!weights.is_object()) continue;
    for (const auto& [file, sha256] : weights.items()) {
      if (sha256.is_string()) facts.add_hash(cat("Metric model ", name, "/", file), sha256.get<std::string>());
    }
  }
}

void add_training(Facts& facts, const Arm& arm) {
  const Json& config = child(arm.distill, "config");
  if (!config.is_object()) return;
  const std::string optimizer = text_at(child(config, "optimizer"), "learning_rate"),
                    taps = text_at(child(config, "loss"), "taps"), balance = text_at(child(config, "loss"), "balance");
  facts.add("Training of " + arm.name,
            cat(arm.steps, " steps of ", text_at(config, "batch"), " pictures, learning rate ", optimizer, ", taps ",
                taps, ", balance ", balance, ", seed ", text_at(config, "seed")));
  facts.add_hash("Student " + arm.name, text_at(arm.distill, "student_sha256"));
}

std::string facts_table(const StudyResults& results) {
  Facts facts;
  if (results.scores) {
    facts.add("Base model", results.scores->base.class_name());
    facts.add_hash("Weights of the teacher's U-Net", results.scores->weights_sha256);
    facts.add("Calibration samples", std::to_string(results.scores->samples));
    facts.add_hash("Calibration", results.scores->calibration_sha256);
  }
  for (const Arm& arm : results.arms) add_evaluation(facts, arm.evaluation);
  for (const Arm& arm : results.arms) add_training(facts, arm);
  return details("Counts, settings and hashes", facts.table());
}

std::string notes(const StudyResults& results) {
  if (results.notes.empty()) return "";
  std::string items;
  for (const std::string& note : results.notes) items += cat("<li>", escape(note), "</li>");
  return cat("<p class=\"missing\">What was not there when this page was made:</p><ul class=\"plain\">", items,
             "</ul>\n");
}

}  // namespace

Section making_section(const Material& material) {
  const StudyResults& results = material.results;
  Section section{"making", "How it was made", ""};
  section.body =
      "<p>Each stage is a command that a person can type; its settings and its output lie in <code>stages/</code> of "
      "the study\u2019s folder. Run the command at the top of this page again to "
      "repeat it: finished stages are kept.</p>\n";
  section.body += stage_table(results) + facts_table(results) + notes(results);
  if (!results.study.is_null())
    section.body += details(
        "The study, study.json",
        scrolling(cat("<pre>", escape(results.study.dump(2, ' ', false, Json::error_handler_t::replace)), "</pre>"),
                  "study.json"));
  return section;
}

}  // namespace laptopdiff::report
