#include "experiments/report/study_results.h"

#include <algorithm>

#include "metrics/prompt_file.h"
#include "runtime/error.h"
#include "runtime/hash.h"

namespace laptopdiff::report {
namespace fs = std::filesystem;
namespace {

using runtime::cat;
using runtime::input_error;
using runtime::ObjectReader;

constexpr const char* kFormat = "laptopdiff.results/1";
constexpr double kNormal95 = 1.959964;

// A stage's place below the study's folder. results.json may come from elsewhere: it must not reach other files.
fs::path stage_path(const fs::path& folder, const std::string& text, const std::string& where) {
  const fs::path path = text;
  const bool leaves = std::any_of(path.begin(), path.end(), [](const fs::path& part) { return part == ".."; });
  if (text.empty() || path.is_absolute() || leaves || text.find('\0') != std::string::npos) {
    throw input_error(where, ": `", text.substr(0, 200), "` must be a path below the study's folder");
  }
  return folder / path;
}

// One file of an arm or of the study; notes what is not there.
class StageFiles {
 public:
  StageFiles(StudyResults& results, const Json& files, std::string owner, std::string where)
      : results_(results), in_(files, where), owner_(std::move(owner)) {}

  bool named(const std::string& key) const { return in_.has(key); }
  std::optional<fs::path> find(const std::string& key) {
    if (!in_.has(key)) {
      in_.ignore(key);
      return std::nullopt;
    }
    const auto text = in_.required<std::string>(key);
    const fs::path path = stage_path(results_.folder, text, cat(in_.where(), ".", key));
    if (fs::exists(path)) return path;
    results_.notes.push_back(cat(owner_, ": ", key, " (", text, ") is not there"));
    return std::nullopt;
  }
  void finish() const { in_.finish(); }

 private:
  StudyResults& results_;
  ObjectReader in_;
  std::string owner_;
};

Metric read_metric(const Json& json, const std::string& where) {
  ObjectReader in(json, where);
  Metric metric;
  metric.value = in.required<double>("value");
  metric.count = in.get<std::int64_t>("count", 0);
  const auto interval = in.get<std::vector<double>>("interval", {});
  if (interval.size() == 2) metric.interval = Interval{interval[0], interval[1]};
  return metric;
}

// metrics.json has what results.json has, and the intervals.
void read_metrics(Arm& arm, const std::optional<fs::path>& file, ObjectReader& row) {
  for (const MetricInfo& info : metric_table()) {
    if (row.has(info.key)) arm.metrics[info.key].value = row.required<double>(info.key);
    else row.ignore(info.key);
  }
  // The loss of a mask is a mean over calibration samples: a normal interval.
  const auto error = row.get<double>("loss_stderr", 0);
  if (Metric& loss = arm.metrics["loss"]; row.has("loss") && error > 0)
    loss.interval = Interval{loss.value - kNormal95 * error, loss.value + kNormal95 * error};
  else if (!row.has("loss")) arm.metrics.erase("loss");
  if (!file) return;
  arm.evaluation = runtime::read_json(*file);
  ObjectReader in(arm.evaluation, file->string());
  if (!in.has("metrics")) throw input_error(file->string(), ": `metrics` is missing");
  const Json& metrics = in.raw("metrics");
  if (!metrics.is_object()) throw input_error(file->string(), ": `metrics` must be an object");
  for (const MetricInfo& info : metric_table()) {
    if (metrics.contains(info.key))
      arm.metrics[info.key] = read_metric(metrics[info.key], cat(file->string(), ": metrics.", info.key));
  }
}

void read_training(Arm& arm, const std::optional<fs::path>& run, StudyResults& results) {
  if (!run) return;
  const fs::path log = *run / "log.jsonl", result = *run / "result.json";
  if (fs::exists(log)) arm.log = read_training_log(log);
  else results.notes.push_back(cat("arm ", arm.name, ": the training log is not there"));
  if (fs::exists(result)) arm.distill = runtime::read_json(result);
}

void read_at(Arm& arm, ObjectReader& row) {
  const Json& at = row.raw("at");
  if (at.is_null()) return;
  if (!at.is_object()) throw input_error(row.where(), ": `at` must be an object");
  for (const auto& [axis, value] : at.items()) arm.at[axis] = value;
}

void read_declines(Arm& arm, ObjectReader& row) {
  if (!row.has("decline_percent")) return row.ignore("decline_percent");
  ObjectReader in(row.raw("decline_percent"), row.where() + ".decline_percent");
  for (const MetricInfo& info : metric_table()) {
    if (in.has(info.key)) arm.declines[info.key] = in.required<double>(info.key);
  }
}

Arm read_arm(const std::string& name, const Json& json, StudyResults& results, const std::string& where) {
  ObjectReader row(json, cat(where, ": arms.", name));
  Arm arm;
  arm.name = name;
  arm.group = row.get<std::string>("group", name);
  read_at(arm, row);
  arm.params = row.required<std::int64_t>("params");
  arm.macs = row.required<std::int64_t>("macs");
  arm.steps = row.get<std::int64_t>("steps", 0);
  if (!row.has("files")) throw input_error(row.where(), ": `files` is missing");
  StageFiles files(results, row.raw("files"), "arm " + name, row.where() + ".files");
  arm.has_spec = files.named("spec");
  arm.is_trained = files.named("distill");
  if (const auto spec = files.find("spec")) arm.spec = unet::read_spec(*spec);
  read_training(arm, files.find("distill"), results);
  arm.images = files.find("images").value_or("");
  read_metrics(arm, files.find("metrics"), row);
  read_declines(arm, row);
  files.finish();
  row.finish();
  return arm;
}

void read_shared(StudyResults& results, const Json& json, const std::string& where) {
  if (json.is_null()) return;
  StageFiles files(results, json, "the study", where + ": shared");
  for (const char* key : {"calibration", "losses"}) files.find(key);  // only its place is checked
  if (const auto scores = files.find("scores")) results.scores = pruning::read_scores(*scores);
  if (const auto audit = files.find("audit")) results.audit = read_audit(*audit);
  files.finish();
}

// The prompts lie outside the study's folder. They are read only where they are the ones the metrics were made with:
// whoever wrote results.json cannot make the page show another file.
void read_prompts(StudyResults& results) {
  for (const Arm& arm : results.arms) {
    for (const char* key : {"prompts", "labels"}) {
      if (!arm.evaluation.is_object() || !arm.evaluation.contains(key) || !arm.evaluation[key].is_object()) continue;
      ObjectReader about(arm.evaluation[key], cat("metrics.json of arm ", arm.name, ": ", key));
      const auto file = about.get<std::string>("file", ""), digest = about.get<std::string>("sha256", "");
      if (file.empty() || !fs::is_regular_file(file) || runtime::sha256_file(file) != digest) continue;
      results.prompts = metrics::read_prompts(file);
      return;
    }
  }
  const bool any =
      std::any_of(results.arms.begin(), results.arms.end(), [](const Arm& arm) { return !arm.images.empty(); });
  if (any) results.notes.push_back("the prompts' file is not there, or is not the one the pictures were measured with");
}

Json read_results_json(const fs::path& folder) {
  const fs::path file = folder / "results.json";
  if (!fs::exists(file)) {
    if (fs::exists(folder / "results.partial.json")) {
      throw input_error(file.string(),
                        " is not there, but results.partial.json is: the sweep is not finished; run `laptopdiff sweep` "
                        "again to go on");
    }
    throw input_error(file.string(), " is not there; expected the folder of a finished `laptopdiff sweep`");
  }
  return runtime::read_json(file);
}

int order_of(const Arm& arm) { return arm.is_teacher() ? 0 : arm.is_trained ? 1 : 2; }

}  // namespace

const std::vector<MetricInfo>& metric_table() {
  static const std::vector<MetricInfo> kTable = {
      {"loss", "Output loss", false, 1, "", true, "mean squared change of the network's output, before any training"},
      {"clip", "CLIP score", true, 1, "", false,
       "how well a picture fits its prompt: the cosine between the two in a CLIP model"},
      {"pick", "Pick score", true, 1, "", false,
       "the same cosine by a second model, times its learned scale (PickScore's formula)"},
      {"fid", "FID", false, 1, "", false, "Fréchet distance between the features of generated and real pictures"},
      {"kid", "KID", false, 1, "", false, "kernel distance between the features of generated and real pictures"},
      {"accuracy", "Accuracy", true, 100, "\u00A0%", false, "how often a classifier sees what the prompt asked for"},
  };
  return kTable;
}

const Arm* StudyResults::teacher() const {
  const auto found = std::find_if(arms.begin(), arms.end(), [](const Arm& arm) { return arm.is_teacher(); });
  return found == arms.end() ? nullptr : &*found;
}

StudyResults read_study_results(const fs::path& folder) {
  const Json json = read_results_json(folder);
  const std::string where = (folder / "results.json").string();
  ObjectReader in(json, where);
  in.require_format(kFormat);
  StudyResults results;
  results.folder = folder;
  results.name = in.get<std::string>("name", "");
  read_shared(results, in.raw("shared"), where);
  const Json& arms = in.raw("arms");
  if (!arms.is_object() || arms.empty()) throw input_error(where, ": `arms` must name at least one arm");
  for (const auto& [name, row] : arms.items()) results.arms.push_back(read_arm(name, row, results, where));
  std::stable_sort(results.arms.begin(), results.arms.end(),
                   [](const Arm& a, const Arm& b) { return order_of(a) < order_of(b); });
  if (in.has("seconds")) {
    if (!in.raw("seconds").is_object()) throw input_error(where, ": `seconds` must be an object");
    for (const auto& [verb, value] : in.raw("seconds").items()) {
      results.seconds[verb] = ObjectReader::convert<double>(value, cat(where, ": seconds.", verb));
    }
  }
  in.ignore("seconds");
  results.study = in.raw("study");
  results.made_by = in.raw("made_by");
  in.finish();
  read_prompts(results);
  return results;
}

}  // namespace laptopdiff::report
