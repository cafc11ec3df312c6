#include "experiments/study.h"

#include <algorithm>

#include "experiments/criterion_needs.h"
#include "runtime/error.h"

namespace laptopdiff::experiments {
namespace {

using runtime::cat;
using runtime::input_error;
using runtime::ObjectReader;

// The stages that are an arm's own, and where it keeps their settings.
const std::map<std::string, Json Arm::*>& arm_stages() {
  static const std::map<std::string, Json Arm::*> kStages = {{"score", &Arm::score},
                                                             {"solve", &Arm::solve},
                                                             {"distill", &Arm::distill},
                                                             {"sample", &Arm::sample},
                                                             {"evaluate", &Arm::evaluate}};
  return kStages;
}

struct Axis {
  std::string name;
  std::vector<std::string> paths;
  std::vector<Json> values;
  std::vector<std::string> arms;  // empty: all
};

Axis parse_axis(const std::string& name, const Json& json, const std::vector<std::string>& known,
                const std::string& where) {
  ObjectReader in(json, cat(where, ": axes.", name));
  Axis axis{name, in.required<std::vector<std::string>>("set"), {}, in.get<std::vector<std::string>>("arms", {})};
  const Json& values = in.raw("values");
  if (!values.is_array() || values.empty())
    throw input_error(in.where(), ": `values` must be a list with at least one value");
  axis.values.assign(values.begin(), values.end());
  in.finish();
  for (const std::string& arm : axis.arms) {
    if (std::find(known.begin(), known.end(), arm) == known.end()) {
      throw input_error(in.where(), ": `arms` names \"", arm, "\", which is no arm of the study",
                        runtime::did_you_mean(arm, known));
    }
  }
  for (const std::string& path : axis.paths) {
    const std::string stage = path.substr(0, path.find('.'));
    if (!arm_stages().contains(stage) || stage == path) {
      throw input_error(in.where(), ": `set` path `", path, "` must start with score., solve., distill., sample. or ",
                        "evaluate.");
    }
  }
  return axis;
}

Json merged(const Json& defaults, const Json& changes) {
  Json result = defaults;
  result.merge_patch(changes);
  return result;
}

// The study's defaults are for the arms that they say something to: a number of samples passes by a criterion that
// looks at the weights alone. What an arm or an axis sets itself must have an effect.
Json score_settings(const Json& defaults, const Json& own) {
  Json settings = merged(defaults, own);
  const pruning::Criterion* criterion = criterion_of(settings);
  if (criterion == nullptr) return settings;
  for (const auto& [name, value] : defaults.items()) {
    if (!own.contains(name) && !has_effect(*criterion, name)) settings.erase(name);
  }
  return settings;
}

// False where `path` sets what the arm does not have: a stage, or a budget beside a preset.
bool applies(const std::string& path, const Arm& arm) {
  const std::string stage = path.substr(0, path.find('.'));
  if (stage == "solve" && !arm.solve.is_null() && arm.solve.contains("preset")) return path == "solve.preset";
  return !(arm.*arm_stages().at(stage)).is_null();
}

void set_path(Arm& arm, const std::string& path, const Json& value) {
  if (!applies(path, arm)) return;
  const std::size_t dot = path.find('.');
  Json* slot = &(arm.*arm_stages().at(path.substr(0, dot)));
  std::size_t begin = dot + 1;
  while (begin <= path.size()) {
    const std::size_t end = std::min(path.find('.', begin), path.size());
    if (!slot->is_null() && !slot->is_object()) {
      throw input_error("axes: `", path, "`: `", path.substr(0, begin - 1), "` is not an object");
    }
    slot = &(*slot)[path.substr(begin, end - begin)];
    begin = end + 1;
  }
  *slot = value;
}

Arm base_arm(const Study& study, const std::string& name, const Json& json, const std::string& where) {
  ObjectReader in(json, cat(where, ": arms.", name));
  for (const auto& [stage, member] : arm_stages()) in.ignore(stage);
  in.finish();
  for (const auto& [stage, member] : arm_stages()) {
    if (in.has(stage) && !json[stage].is_object()) throw input_error(in.where(), ": `", stage, "` must be an object");
  }
  const auto part = [&](const char* stage, const Json& defaults) {
    return merged(defaults, json.value(stage, Json::object()));
  };
  Arm arm;
  arm.name = arm.group = name;
  // A study without pictures has none unless the arm asks for them.
  if (!study.sample.is_null() || json.contains("sample")) {
    arm.sample = part("sample", study.sample);
    arm.evaluate = part("evaluate", study.evaluate);
  }
  if (json.contains("solve") || json.contains("distill")) {
    // A preset and a budget exclude each other: the arm's own word takes the place of the study's.
    Json defaults = study.solve;
    const Json own = json.value("solve", Json::object());
    if (own.contains("preset")) defaults = Json::object();
    else if (own.contains("budget")) defaults.erase("preset");
    arm.solve = part("solve", defaults);
    if (!arm.solve.contains("preset")) arm.score = json.value("score", Json::object());  // its own, until all axes are
  }
  if (json.contains("distill")) arm.distill = part("distill", study.distill);
  return arm;
}

std::string value_text(const Json& value) { return value.is_string() ? value.get<std::string>() : value.dump(); }

// An arm to which no path of the axis applies would be the same many times over: it stays one.
bool touches(const Axis& axis, const Arm& arm) {
  if (!axis.arms.empty() && std::find(axis.arms.begin(), axis.arms.end(), arm.group) == axis.arms.end()) return false;
  return std::any_of(axis.paths.begin(), axis.paths.end(), [&](const std::string& path) { return applies(path, arm); });
}

std::vector<Arm> along(const Axis& axis, const std::vector<Arm>& arms) {
  std::vector<Arm> expanded;
  for (const Arm& arm : arms) {
    if (!touches(axis, arm)) {
      expanded.push_back(arm);
      continue;
    }
    for (const Json& value : axis.values) {
      Arm copy = arm;
      for (const std::string& path : axis.paths) set_path(copy, path, value);
      copy.at[axis.name] = value;
      if (axis.values.size() > 1) copy.name += cat(" ", axis.name, "=", value_text(value));
      expanded.push_back(std::move(copy));
    }
  }
  return expanded;
}

}  // namespace

Study parse_study(const Json& json, const std::string& where) {
  Study study = runtime::read_config<Study>(json, where);
  if (json.contains("sample") && json["sample"].is_null()) study.sample = nullptr;  // elsewhere null means the default
  for (const auto& [name, value] :
       {std::pair{"pipeline", study.pipeline}, {"train", study.train}, {"models", study.models}}) {
    const bool needed = std::string(name) != "models" || !study.sample.is_null();
    if (value.empty() && needed) throw input_error(where, ": `", name, "` is missing");
  }
  for (const char* stage : {"calibrate", "score", "audit", "loss", "solve", "distill", "sample", "evaluate"}) {
    if (json.contains(stage) && !json[stage].is_null() && !json[stage].is_object()) {
      throw input_error(where, ": `", stage, "` must be an object");
    }
  }
  if (!study.arms.is_object() || study.arms.empty()) throw input_error(where, ": `arms` must name at least one arm");
  return study;
}

std::vector<Arm> expand_arms(const Study& study, const std::string& where) {
  std::vector<Arm> arms;
  for (const auto& [name, json] : study.arms.items()) arms.push_back(base_arm(study, name, json, where));
  // The teacher first: every other arm is read against it.
  std::stable_partition(arms.begin(), arms.end(), [](const Arm& arm) { return arm.solve.is_null(); });
  if (!study.axes.is_object()) throw input_error(where, ": `axes` must be an object");
  std::vector<std::string> names;
  for (const Arm& arm : arms) names.push_back(arm.group);
  for (const auto& [name, json] : study.axes.items()) arms = along(parse_axis(name, json, names, where), arms);
  for (Arm& arm : arms) {
    if (!arm.score.is_null()) arm.score = score_settings(study.score, arm.score);
  }
  return arms;
}

}  // namespace laptopdiff::experiments
