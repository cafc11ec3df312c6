#include "pruning/latency.h"

#include <cmath>
#include <numeric>

#include "pruning/resources.h"
#include "runtime/error.h"

namespace laptopdiff::pruning {
namespace {

using runtime::cat;
using runtime::input_error;
using runtime::Json;
using runtime::ObjectReader;

constexpr const char* kFormat = "laptopdiff.latency/1";

Json savings(const Latency& latency) {
  const unet::Program base = unet::build_base(latency.base, latency.geometry);
  const CostModel costs(base, latency);
  const auto saved = [&](const std::string& path) {
    return costs.freed({{path, unet::How::bypass}}, unet::Shell::drop, {Resource::latency}).front();
  };
  Json units = Json::array(), shells = Json::array();
  const std::vector<unet::Unit> all = unet::find_units(base);
  for (const unet::Unit& unit : all) units.push_back({{"layer", unit.layer}, {"seconds", saved(unit.layer)}});
  for (const unet::ShellGroup& group : unet::find_shells(base, all)) {
    if (group.units.size() > 1) shells.push_back({{"path", group.path}, {"seconds", saved(group.path)}});
  }
  return {{"units", units}, {"shells", shells}};
}

// Equal but for rounding: another compiler adds the steps up in another way.
bool same_savings(const Json& written, const Json& derived, double tolerance) {
  if (derived.is_number()) {
    return written.is_number() && std::abs(written.get<double>() - derived.get<double>()) <= tolerance;
  }
  if (!derived.is_structured()) return written == derived;
  if (written.type() != derived.type() || written.size() != derived.size()) return false;
  for (const auto& [key, value] : derived.items()) {
    const Json* other = nullptr;
    if (derived.is_array()) other = &written[std::stoul(key)];
    else if (written.contains(key)) other = &written[key];
    if (other == nullptr || !same_savings(*other, value, tolerance)) return false;
  }
  return true;
}

constexpr double kMostSeconds = 1e9;  // of one step; beyond it something else was meant

double read_seconds(const Json& value, const std::string& where) {
  const double seconds = ObjectReader::convert<double>(value, where);
  if (!(seconds >= 0 && seconds <= kMostSeconds))
    throw input_error(where, ": is ", seconds, " seconds, expected 0 to ", kMostSeconds);
  return seconds;
}

template <typename T>
T read_count(ObjectReader& in, const char* name, T least) {
  const T count = in.required<T>(name);
  if (count < least) throw input_error(in.where(), ": `", name, "` is ", count, ", expected at least ", least);
  return count;
}

void read_steps(const Json& list, Latency& latency, const unet::Program& base, const std::string& where) {
  if (!list.is_array() || list.size() != base.steps.size())
    throw input_error(where, ": `steps` must list the ", base.steps.size(), " steps of its base");
  for (std::size_t i = 0; i < list.size(); ++i) {
    const unet::Step& step = base.steps[i];
    ObjectReader in(list[i], cat(where, ": steps[", i, "]"));
    const auto path = in.required<std::string>("path"), kind = in.required<std::string>("kind");
    if (path != step.path || kind != unet::step_name(step.kind)) {
      throw input_error(in.where(), ": is `", path, "` (", kind, "), expected `", step.path, "` (",
                        unet::step_name(step.kind), ") in execution order");
    }
    if (!in.has("seconds")) throw input_error(in.where(), ": `seconds` is missing");
    latency.steps.push_back(read_seconds(in.raw("seconds"), in.where() + ".seconds"));
    if (in.has("least")) {
      latency.least.push_back(read_seconds(in.raw("least"), in.where() + ".least"));
      if (latency.least.back() > latency.steps.back())
        throw input_error(in.where(), ": `least` is ", latency.least.back(), ", more than its `seconds`");
    }
    const bool leaves = (step.kind == unet::StepKind::resnet || step.kind == unet::StepKind::attention) &&
                        unet::bypassed_layer(base, step);
    if (leaves && !in.has("shortcut"))
      throw input_error(in.where(), ": `shortcut` is missing: what a bypass of this layer leaves takes time");
    if (leaves) latency.shortcuts[step.position] = read_seconds(in.raw("shortcut"), in.where() + ".shortcut");
    in.finish();
  }
  if (!latency.least.empty() && latency.least.size() != latency.steps.size())
    throw input_error(where, ": `least` must be given for every one of `steps`, or for none");
}

}  // namespace

std::vector<int> unsteady_steps(const Latency& latency) {
  constexpr double kWeighs = 0.01, kSteady = 2;
  const double all = std::accumulate(latency.steps.begin(), latency.steps.end(), 0.0);
  std::vector<int> unsteady;
  for (std::size_t i = 0; i < latency.least.size(); ++i) {
    if (latency.steps[i] >= kWeighs * all && latency.steps[i] > kSteady * latency.least[i])
      unsteady.push_back(static_cast<int>(i));
  }
  return unsteady;
}

std::string device_text(const Latency& latency) {
  return latency.device_name.empty() ? latency.device : cat(latency.device_name, " (", latency.device, ")");
}

Json latency_json(const Latency& latency) {
  const unet::Program base = unet::build_base(latency.base, latency.geometry);
  Json steps = Json::array();
  for (const unet::Step& step : base.steps) {
    Json row = {{"path", step.path},
                {"kind", unet::step_name(step.kind)},
                {"seconds", latency.steps.at(static_cast<std::size_t>(step.position))}};
    if (!latency.least.empty()) row["least"] = latency.least.at(static_cast<std::size_t>(step.position));
    if (const auto found = latency.shortcuts.find(step.position); found != latency.shortcuts.end())
      row["shortcut"] = found->second;
    steps.push_back(std::move(row));
  }
  Json json = {{"format", kFormat},
               {"base", {{"class", latency.base.class_name()}, {"config", latency.base.raw}}},
               {"device", latency.device},
               {"dtype", latency.dtype},
               {"threads", latency.threads},
               {"batch", latency.batch},
               {"repeats", latency.repeats},
               {"latent", {base.geometry.height, base.geometry.width}},
               {"tokens", base.geometry.tokens},
               {"forward", latency.forward},
               {"steps", steps},
               {"saved", savings(latency)},
               {"made_by", latency.made_by}};
  if (!latency.device_name.empty()) json["device_name"] = latency.device_name;
  return json;
}

Latency read_latency(const std::filesystem::path& path) {
  const Json json = runtime::read_json(path);
  const std::string where = path.string();
  ObjectReader in(json, where);
  in.require_format(kFormat);
  Latency latency;
  if (!in.has("base")) throw input_error(where, ": `base` is missing");
  ObjectReader base(in.raw("base"), where + ": base");
  Json config = base.raw("config");
  if (config.is_object()) config["_class_name"] = base.required<std::string>("class");
  latency.base = unet::parse_config(config, where + ": base.config");
  base.finish();
  latency.device = in.required<std::string>("device");
  latency.device_name = in.get<std::string>("device_name", "");
  latency.dtype = in.required<std::string>("dtype");
  latency.threads = read_count<int>(in, "threads", 0);
  latency.batch = read_count<std::int64_t>(in, "batch", 1);
  latency.repeats = read_count<std::int64_t>(in, "repeats", 0);
  const auto latent = in.required<std::vector<int>>("latent");
  if (latent.size() != 2 || latent[0] < 1 || latent[1] < 1)
    throw input_error(where, ": `latent` must be [height, width]");
  latency.geometry = {latent[0], latent[1], read_count<int>(in, "tokens", 1)};
  if (!in.has("forward")) throw input_error(where, ": `forward` is missing");
  latency.forward = read_seconds(in.raw("forward"), where + ": forward");
  read_steps(in.raw("steps"), latency, unet::build_base(latency.base, latency.geometry), where);
  const Json saved = in.raw("saved");
  latency.made_by = in.raw("made_by");
  in.finish();
  const double all = std::accumulate(latency.steps.begin(), latency.steps.end(), 0.0);
  if (!(all > 0)) throw input_error(where, ": `seconds` of all `steps` are 0, so nothing was timed; measure again");
  if (!saved.is_null() && !same_savings(saved, savings(latency), 1e-9 * all))
    throw input_error(where, ": `saved` is not what its steps give; leave it out, or measure again");
  return latency;
}

}  // namespace laptopdiff::pruning
