#include "unet/spec.h"

#include <algorithm>
#include <set>

#include "runtime/error.h"
#include "runtime/hash.h"

namespace laptopdiff::unet {
namespace {

using runtime::cat;
using runtime::input_error;
using runtime::ObjectReader;

constexpr const char* kSpecFormat = "laptopdiff.spec/1";
constexpr const char* kSpecSetFormat = "laptopdiff.spec-set/1";
constexpr int kMaxTimestep = 1'000'000;

// True where `path` is `prefix` itself or lies below it.
bool inside(const std::string& path, const std::string& prefix) {
  return path.rfind(prefix, 0) == 0 && (path.size() == prefix.size() || path[prefix.size()] == '.');
}

bool is_stage(const std::string& layer) {
  return layer == "mid_block" || ((layer.rfind("down_blocks.", 0) == 0 || layer.rfind("up_blocks.", 0) == 0) &&
                                  std::count(layer.begin(), layer.end(), '.') == 1);
}

// Every name that may stand in `removed` for this base and this way of removal.
std::vector<std::string> removable(const Program& base, How how) {
  std::set<std::string> names;
  for (const Step& step : base.steps) {
    const bool layer = (step.kind == StepKind::resnet && step.resample == Resample::none) ||
                       step.kind == StepKind::shell_in || step.kind == StepKind::attn1 ||
                       step.kind == StepKind::attention;
    if (!layer) continue;
    const bool block = step.kind == StepKind::attn1;
    if (how == How::bypass || !block) names.insert(step.path);
    if (how == How::bypass && block) {
      for (const char* part : {".attn1", ".attn2", ".ff"}) names.insert(step.path + part);
    }
  }
  if (how == How::drop) {
    for (const Stage& stage : base.stages) names.insert(stage.path);
  }
  return {names.begin(), names.end()};
}

// What becomes of each base step.
enum class Fate { stays, goes, shortcut };

class Pruner {
 public:
  Pruner(const Program& base, const Spec& spec) : base_(base), spec_(spec), fate_(base.steps.size(), Fate::stays) {}

  Program run() {
    const std::vector<Removal> removals = canonical_removals(base_, spec_);
    for (const Removal& removal : removals) {
      if (removal.how == How::drop) drop(removal.layer);
    }
    for (const Removal& removal : removals) {
      if (removal.how == How::bypass) bypass(removal.layer);
    }
    if (spec_.shell == Shell::drop) drop_empty_shells();
    Program pruned{base_.config, base_.geometry, base_.stages, {}};
    for (const Step& step : base_.steps) {
      const Fate fate = fate_[static_cast<std::size_t>(step.position)];
      if (fate == Fate::stays) pruned.steps.push_back(step);
      if (fate == Fate::shortcut) {
        if (auto left = bypassed_layer(base_, step)) pruned.steps.push_back(std::move(*left));
      }
    }
    check_program(pruned);
    return pruned;
  }

 private:
  Fate& fate(const Step& step) { return fate_[static_cast<std::size_t>(step.position)]; }

  void drop(const std::string& layer) {
    for (const Step& step : base_.steps) {
      if (inside(step.path, layer)) fate(step) = Fate::goes;
    }
    if (is_stage(layer)) drop_samplers(layer);
    // resnets.j takes attentions.j with it.
    if (const std::size_t at = layer.find(".resnets."); at != std::string::npos && layer.rfind("mid_block", 0) != 0) {
      const std::string attention = layer.substr(0, at) + ".attentions." + layer.substr(at + 9);
      for (const Step& step : base_.steps) {
        if (inside(step.path, attention)) fate(step) = Fate::goes;
      }
    }
  }

  // A dropped last down stage leaves the sampler before it without a purpose; its own went with it. A dropped up stage
  // takes its up-sampler along.
  void drop_samplers(const std::string& layer) {
    if (layer.rfind("down_blocks.", 0) != 0) return;
    const int stage = std::stoi(layer.substr(12));
    const std::string sampler = cat("down_blocks.", stage - 1, ".downsamplers.0");
    const bool own_sampler = base_.config.down[static_cast<std::size_t>(stage)].sampler != Resample::none;
    if (stage == 0 || own_sampler) return;
    for (const Step& step : base_.steps) {
      if (inside(step.path, sampler)) fate(step) = Fate::goes;
    }
  }

  void bypass(const std::string& layer) {
    for (const Step& step : base_.steps) {
      if ((step.kind == StepKind::resnet || step.kind == StepKind::attention) && step.path == layer) {
        require_present(step, layer);
        fate(step) = Fate::shortcut;
      } else if (in_block(step, layer)) {
        require_present(step, layer);
        fate(step) = Fate::goes;
      }
    }
  }

  static bool in_block(const Step& step, const std::string& layer) {
    switch (step.kind) {
      case StepKind::attn1: return step.path == layer || step.path + ".attn1" == layer;
      case StepKind::attn2: return step.path == layer || step.path + ".attn2" == layer;
      case StepKind::ff: return step.path == layer || step.path + ".ff" == layer;
      default: return false;
    }
  }

  void require_present(const Step& step, const std::string& layer) {
    if (fate(step) != Fate::stays)
      throw input_error("removed: `", layer, "` is listed twice or lies inside a dropped layer");
  }

  // A shell goes where the spec took its blocks. One that had none to begin with (depth 0) stays: it still computes.
  void drop_empty_shells() {
    const Step* shell_in = nullptr;
    int present = 0, removed = 0;
    for (const Step& step : base_.steps) {
      if (step.kind == StepKind::shell_in) {
        shell_in = &step;
        present = removed = 0;
      } else if (step.kind == StepKind::attn1 || step.kind == StepKind::attn2 || step.kind == StepKind::ff) {
        ++(fate(step) == Fate::stays ? present : removed);
      } else if (step.kind == StepKind::shell_out && present == 0 && removed > 0) {
        fate(*shell_in) = fate(step) = Fate::goes;
      }
    }
  }

  const Program& base_;
  const Spec& spec_;
  std::vector<Fate> fate_;
};

std::string how_name(How how) { return how == How::bypass ? "bypass" : "drop"; }

Removal parse_removal(const Json& json, const std::string& where) {
  ObjectReader in(json, where);
  Removal removal{in.required<std::string>("layer"), How::bypass};
  const auto how = in.get<std::string>("how", "bypass");
  if (how != "bypass" && how != "drop") throw input_error(where, ": `how` is \"", how, "\", expected bypass or drop");
  removal.how = how == "drop" ? How::drop : How::bypass;
  in.finish();
  return removal;
}

void check_total(ObjectReader& totals, const std::string& key, std::int64_t base, std::int64_t pruned) {
  if (!totals.has(key)) return totals.ignore(key);
  ObjectReader in(totals.raw(key), totals.where() + "." + key);
  const auto written_base = in.get<std::int64_t>("base", base), written_pruned = in.get<std::int64_t>("pruned", pruned);
  in.finish();
  if (written_base != base || written_pruned != pruned) {
    throw input_error(in.where(), ": says base ", written_base, ", pruned ", written_pruned,
                      "; this base and these removals give ", base, " and ", pruned);
  }
}

void check_totals(const Spec& spec, const Json& json, const std::string& where) {
  const Program base = build_base(spec.base), pruned = prune(base, spec);
  if (json.is_null()) return;
  ObjectReader totals(json, where + ": totals");
  check_total(totals, "params", base.params(), pruned.params());
  check_total(totals, "macs", base.macs(), pruned.macs());
  totals.finish();
}

void read_timesteps(ObjectReader& in, Spec& spec) {
  const auto range = in.get<std::vector<int>>("timesteps", {0, 1000});
  if (range.size() != 2 || range[0] < 0 || range[0] >= range[1] || range[1] > kMaxTimestep) {
    throw input_error(in.where(), ": `timesteps` must be [first, last) with 0 <= first < last");
  }
  spec.first_timestep = range[0];
  spec.last_timestep = range[1];
}

Json identity_json(const Spec& spec) {
  const Program base = build_base(spec.base);
  Json removed = Json::array();
  for (const Removal& r : canonical_removals(base, spec)) removed.push_back({r.layer, how_name(r.how)});
  return {{"class", spec.base.class_name()},
          {"config", comparable_config(spec.base)},
          {"removed", removed},
          {"shell", spec.shell == Shell::drop ? "drop" : "keep"},
          {"timesteps", {spec.first_timestep, spec.last_timestep}}};
}

}  // namespace

Json comparable_config(const Json& config) {
  Json plain = Json::object();
  for (const auto& [key, value] : config.items()) {
    if (key.rfind('_', 0) != 0) plain[key] = value;
  }
  return plain;
}

Json comparable_config(const Config& config) { return comparable_config(config.raw); }

std::vector<Removal> canonical_removals(const Program& base, const Spec& spec) {
  const std::vector<std::string> bypassable = removable(base, How::bypass), droppable = removable(base, How::drop);
  if (spec.removed.size() > bypassable.size() + droppable.size()) {
    throw input_error("removed: ", spec.removed.size(), " entries, but this ", spec.base.class_name(), " has only ",
                      bypassable.size() + droppable.size(), " ways to remove something; some are listed twice");
  }
  std::vector<Removal> list;
  for (const Removal& removal : spec.removed) {
    const auto& known = removal.how == How::bypass ? bypassable : droppable;
    if (!std::binary_search(known.begin(), known.end(), removal.layer)) {
      throw input_error("removed: `", removal.layer.substr(0, 200), "` cannot be removed by ", how_name(removal.how),
                        " from this ", spec.base.class_name(), runtime::did_you_mean(removal.layer, known));
    }
    bool is_shell = false;
    for (const Step& step : base.steps) {
      if (step.kind == StepKind::shell_in && step.path == removal.layer) is_shell = true;
      if (step.kind == StepKind::attn1 && inside(step.path, removal.layer) && step.path != removal.layer && is_shell &&
          removal.how == How::bypass) {
        list.push_back({step.path, How::bypass});
      }
    }
    if (!is_shell || removal.how == How::drop) list.push_back(removal);
  }
  std::sort(list.begin(), list.end());
  for (std::size_t i = 1; i < list.size(); ++i) {
    if (list[i].layer == list[i - 1].layer) throw input_error("removed: `", list[i].layer, "` is listed twice");
  }
  for (const Removal& outer : list) {
    if (outer.how != How::drop) continue;
    for (const Removal& inner : list) {
      if (&inner != &outer && inside(inner.layer, outer.layer)) {
        throw input_error("removed: `", inner.layer, "` lies inside `", outer.layer, "`, which is dropped");
      }
    }
  }
  return list;
}

Program prune(const Program& base, const Spec& spec) { return Pruner(base, spec).run(); }

Program build_program(const Spec& spec, Geometry geometry) { return prune(build_base(spec.base, geometry), spec); }

bool same_spec(const Spec& a, const Spec& b) { return identity_json(a) == identity_json(b); }

std::string spec_digest(const Spec& spec) { return runtime::sha256(identity_json(spec).dump()); }

Spec parse_spec(const Json& json, const std::string& where) {
  ObjectReader in(json, where);
  in.require_format(kSpecFormat);
  Spec spec;
  if (!in.has("base")) throw input_error(where, ": `base` is missing");
  ObjectReader base(in.raw("base"), where + ": base");
  const auto class_name = base.required<std::string>("class");
  if (!base.has("config")) throw input_error(base.where(), ": `config` is missing");
  Json config = base.raw("config");
  if (config.is_object()) config["_class_name"] = class_name;
  spec.base = parse_config(config, base.where() + ": config");
  spec.weights_sha256 = base.get<std::string>("weights_sha256", "");
  base.finish();

  const auto shell = in.get<std::string>("shell", "drop");
  if (shell != "drop" && shell != "keep")
    throw input_error(where, ": `shell` is \"", shell, "\", expected drop or keep");
  spec.shell = shell == "drop" ? Shell::drop : Shell::keep;
  const Json& removed = in.raw("removed");
  if (!removed.is_array()) throw input_error(where, ": `removed` must be a list");
  for (std::size_t i = 0; i < removed.size(); ++i) {
    spec.removed.push_back(parse_removal(removed[i], cat(where, ": removed[", i, "]")));
  }
  read_timesteps(in, spec);
  const Json totals = in.raw("totals");
  spec.made_by = in.raw("made_by");
  in.finish();
  try {
    check_totals(spec, totals, where);
  } catch (const runtime::Error& error) {
    const std::string what = error.what();
    throw runtime::Error(error.code(), what.rfind(where, 0) == 0 ? what : where + ": " + what);
  }
  return spec;
}

Spec read_spec(const std::filesystem::path& path) { return parse_spec(runtime::read_json(path), path.string()); }

Json spec_json(const Spec& spec) {
  const Program base = build_base(spec.base), pruned = prune(base, spec);
  Json removed = Json::array();
  for (const Removal& r : spec.removed) removed.push_back({{"layer", r.layer}, {"how", how_name(r.how)}});
  Json json = {{"format", kSpecFormat},
               {"shell", spec.shell == Shell::drop ? "drop" : "keep"},
               {"base", {{"class", spec.base.class_name()}, {"config", spec.base.raw}}},
               {"removed", removed},
               {"timesteps", {spec.first_timestep, spec.last_timestep}},
               {"totals",
                {{"params", {{"base", base.params()}, {"pruned", pruned.params()}}},
                 {"macs", {{"base", base.macs()}, {"pruned", pruned.macs()}}}}}};
  if (!spec.weights_sha256.empty()) json["base"]["weights_sha256"] = spec.weights_sha256;
  if (!spec.made_by.is_null()) json["made_by"] = spec.made_by;
  return json;
}

namespace {

bool says_set(const Json& json) { return json.is_object() && json.value("format", Json()) == kSpecSetFormat; }

std::vector<Spec> parse_spec_set(const Json& json, const std::string& where) {
  ObjectReader in(json, where);
  in.ignore("format");
  const Json& students = in.raw("students");
  in.ignore("made_by");
  in.finish();
  if (!students.is_array() || students.empty()) throw input_error(where, ": `students` must be a list of specs");
  std::vector<Spec> set;
  for (std::size_t i = 0; i < students.size(); ++i)
    set.push_back(parse_spec(students[i], cat(where, ": students[", i, "]")));
  std::sort(set.begin(), set.end(), [](const Spec& a, const Spec& b) { return a.first_timestep < b.first_timestep; });
  for (std::size_t i = 1; i < set.size(); ++i) {
    if (set[i].first_timestep != set[i - 1].last_timestep) {
      throw input_error(where, ": timesteps [", set[i - 1].first_timestep, ", ", set[i - 1].last_timestep, ") and [",
                        set[i].first_timestep, ", ", set[i].last_timestep, ") leave a gap or overlap");
    }
    if (comparable_config(set[i].base) != comparable_config(set[0].base))
      throw input_error(where, ": the students are not of one base");
  }
  return set;
}

}  // namespace

SpecFile read_spec_file(const std::filesystem::path& path) {
  const Json json = runtime::read_json(path);
  if (says_set(json)) return {path, parse_spec_set(json, path.string()), true};
  return {path, {parse_spec(json, path.string())}, false};
}

std::optional<SpecFile> find_spec_set(const std::filesystem::path& path) {
  if (!std::filesystem::is_regular_file(path) || path.extension() != ".json") return std::nullopt;
  const Json json = runtime::read_json(path);
  if (!says_set(json)) return std::nullopt;
  return SpecFile{path, parse_spec_set(json, path.string()), true};
}

Json spec_set_json(const std::vector<Spec>& students) {
  Json list = Json::array();
  for (const Spec& spec : students) list.push_back(spec_json(spec));
  return {{"format", kSpecSetFormat}, {"students", list}};
}

}  // namespace laptopdiff::unet
