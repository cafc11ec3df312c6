// The results of a sweep, read back: DIR/results.json with the stage files it names.
//
// Stage files that are not there are left out and noted; files that are there and broken are errors that name them.
#pragma once

#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "experiments/report/audit_rows.h"
#include "experiments/report/training_log.h"
#include "pruning/scores.h"
#include "unet/spec.h"

namespace laptopdiff::report {

using runtime::Json;

struct Interval {
  double low = 0, high = 0;
};

// One number of metrics.json.
struct Metric {
  double value = 0;
  std::optional<Interval> interval;  // 95 %, over pictures; means have one, distances have none
  std::int64_t count = 0;            // pictures; 0 where it is not said
};

// What the page calls a metric, in the order of the tables.
struct MetricInfo {
  const char* key;   // in results.json
  const char* name;  // "CLIP score"
  bool higher_is_better;
  double factor;     // shown value = value * factor
  const char* unit;  // behind the shown value
  bool is_wide;      // of values that differ by orders of magnitude: its axis is logarithmic
  const char* meaning;
};
const std::vector<MetricInfo>& metric_table();

struct Arm {
  std::string name, group;
  std::map<std::string, Json> at;  // axis -> value
  std::int64_t params = 0, macs = 0, steps = 0;
  std::map<std::string, Metric> metrics;
  std::map<std::string, double> declines;  // percent, against the teacher; above 0 is worse
  std::optional<unet::Spec> spec;
  bool has_spec = false;  // named in results.json, there or not
  bool is_trained = false;
  TrainingLog log;               // empty without training
  Json distill, evaluation;      // result.json and metrics.json; null where there is none
  std::filesystem::path images;  // empty where there is none

  bool is_teacher() const { return !has_spec; }
};

struct StudyResults {
  std::string name;
  std::filesystem::path folder;
  std::vector<Arm> arms;  // the teacher, trained arms, then those that were pruned only; by name
  std::optional<pruning::Scores> scores;
  std::optional<AuditFile> audit;
  std::map<std::string, double> seconds;  // of each verb
  Json study, made_by;                    // as written
  std::vector<std::string> prompts;       // line i for picture i; empty where the file is gone or has changed
  std::vector<std::string> notes;         // what was not there

  const Arm* teacher() const;
};

// Throws Error(bad_input): no results.json, broken files, stage paths that are absolute or leave `folder`.
StudyResults read_study_results(const std::filesystem::path& folder);

}  // namespace laptopdiff::report
