// `inspect`: the map of a U-Net, and the spec of a student against its base.
#include <torch/types.h>

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <iostream>
#include <limits>
#include <set>

#include "experiments/command.h"
#include "experiments/verbs.h"
#include "runtime/error.h"
#include "runtime/progress.h"
#include "unet/fates.h"
#include "unet/native_config.h"
#include "unet/recover_spec.h"
#include "unet/weights.h"

namespace laptopdiff::experiments {
namespace {

using runtime::percent;
using runtime::with_commas;

struct InspectOptions {
  std::string model, spec, diff, base, variant, output;
  int latent = 0, tokens = 77;
  bool steps = false;
  template <typename V>
  void fields(V& v) {
    v("model", model, "U-Net folder, config.json, pipeline folder or single-file checkpoint");
    v("spec", spec, "spec.json to apply");
    v("diff", diff, "a second spec.json: what the two remove differently");
    v("base", base, "the model that this one is a student of: recovers its spec");
    v("variant", variant, "with --base: which variant of the student's weights to read (fp16, ...)");
    v("output", output, "with --base: spec.json to write");
    v("latent", latent, "latent size that MACs are counted for; 0: the config's");
    v("tokens", tokens, "text tokens that MACs are counted for");
    v("steps", steps, "list every step of the program");
  }
};

// What is left of each unit.
struct Remains {
  std::vector<unet::Unit> units;
  std::vector<unet::Fate> fates;
  std::set<std::pair<int, unet::StepKind>> steps;

  Remains(const unet::Program& base, const unet::Spec& spec)
      : units(unet::find_units(base, spec.shell)), fates(unet::fates(base, units, spec)) {
    for (const unet::Step& step : unet::prune(base, spec).steps) steps.emplace(step.position, step.kind);
  }

  bool gone(std::size_t i) const { return fates[i] != unet::Fate::kept; }
  std::size_t gone() const {
    return units.size() - static_cast<std::size_t>(std::count(fates.begin(), fates.end(), unet::Fate::kept));
  }
};

Json unit_json(const unet::Unit& unit, unet::Fate fate) {
  return {{"layer", unit.layer}, {"kind", unet::unit_name(unit.kind)},  {"params", unit.params},
          {"macs", unit.macs},   {"removed", fate != unet::Fate::kept}, {"fate", unet::fate_name(fate)}};
}

void print_map(const unet::Program& base, const unet::Program& pruned, const Remains& remains, bool steps) {
  std::printf("%s, latent %dx%d, %d tokens\n", base.config.class_name(), base.geometry.height, base.geometry.width,
              base.geometry.tokens);
  std::printf("  params %16s\n  MACs   %16s\n  steps  %16zu\n", with_commas(pruned.params()).c_str(),
              with_commas(pruned.macs()).c_str(), pruned.steps.size());
  if (pruned.params() != base.params()) {
    std::printf("  kept %s of the params and %s of the MACs; %zu layers removed\n",
                percent(pruned.params(), base.params()).c_str(), percent(pruned.macs(), base.macs()).c_str(),
                remains.gone());
  }
  std::printf("\n  %-58s %-12s %14s %16s\n", "unit", "kind", "params", "MACs");
  for (std::size_t i = 0; i < remains.units.size(); ++i) {
    const unet::Unit& unit = remains.units[i];
    const char mark = !remains.gone(i) ? ' ' : remains.fates[i] == unet::Fate::partly ? '/' : 'x';
    std::printf("%c %-58s %-12s %14s %16s\n", mark, unit.layer.c_str(), unet::unit_name(unit.kind),
                with_commas(unit.params).c_str(), with_commas(unit.macs).c_str());
  }
  if (!steps) return;
  std::printf("\n%5s %-11s %-58s %10s %10s %9s\n", "", "step", "path", "in", "out", "size");
  for (const unet::Step& step : pruned.steps) {
    std::printf("%5d %-11s %-58s %10d %10d %4dx%-4d\n", step.position, unet::step_name(step.kind), step.path.c_str(),
                step.in_channels, step.out_channels, step.height, step.width);
  }
}

Json steps_json(const unet::Program& program) {
  Json list = Json::array();
  for (const unet::Step& step : program.steps) {
    list.push_back({{"position", step.position},
                    {"step", unet::step_name(step.kind)},
                    {"path", step.path},
                    {"in", step.in_channels},
                    {"out", step.out_channels},
                    {"size", {step.height, step.width}},
                    {"params", step.params},
                    {"macs", step.macs}});
  }
  return list;
}

// True where two specs leave the same of unit `i`, and leave it the same way.
bool same_unit(const unet::Program& base, const Remains& a, const Remains& b, std::size_t i) {
  if (a.fates[i] != b.fates[i]) return false;
  for (int position = a.units[i].first; position <= a.units[i].last; ++position) {
    const std::pair step(position, base.steps[static_cast<std::size_t>(position)].kind);
    if (a.steps.contains(step) != b.steps.contains(step)) return false;
  }
  return true;
}

void print_diff(const unet::Program& base, const Remains& a, const Remains& b, bool as_json) {
  Json only_first = Json::array(), only_second = Json::array(), otherwise = Json::array();
  std::size_t common = 0;
  for (std::size_t i = 0; i < a.units.size(); ++i) {
    const std::string& layer = a.units[i].layer;
    if (a.gone(i) && !b.gone(i)) only_first.push_back(layer);
    else if (!a.gone(i) && b.gone(i)) only_second.push_back(layer);
    else if (!same_unit(base, a, b, i))
      otherwise.push_back(
          {{"layer", layer}, {"first", unet::fate_name(a.fates[i])}, {"second", unet::fate_name(b.fates[i])}});
    else if (a.gone(i)) ++common;
  }
  if (as_json) {
    std::cout << runtime::dump_json(
        {{"only_first", only_first}, {"only_second", only_second}, {"otherwise", otherwise}, {"common", common}});
    return;
  }
  for (const Json& layer : only_first) std::cout << "- only the first removes " << layer.get<std::string>() << "\n";
  for (const Json& layer : only_second) std::cout << "+ only the second removes " << layer.get<std::string>() << "\n";
  for (const Json& unit : otherwise) {
    std::cout << "~ " << unit["layer"].get<std::string>() << ": " << unit["first"].get<std::string>()
              << " by the first, " << unit["second"].get<std::string>() << " by the second\n";
  }
  if (only_first.empty() && only_second.empty() && otherwise.empty()) std::cout << "both remove the same layers\n";
}

bool holds_weights(const std::string& path) {
  namespace fs = std::filesystem;
  const fs::path folder = fs::is_directory(fs::path(path) / "unet") ? fs::path(path) / "unet" : fs::path(path);
  if (!fs::is_directory(folder)) return folder.extension() == ".safetensors";
  return std::any_of(fs::directory_iterator(folder), fs::directory_iterator(),
                     [](const auto& entry) { return entry.path().extension() == ".safetensors"; });
}

// |s - b|^2 / |b|^2 over the tensors below two layers; infinite where their shapes differ.
double layer_distance(const runtime::TensorMap& student, const runtime::TensorMap& base, const std::string& layer,
                      const std::string& base_layer) {
  double difference = 0, norm = 0;
  for (auto at = student.lower_bound(layer + "."); at != student.end() && at->first.starts_with(layer + "."); ++at) {
    const auto found = base.find(base_layer + at->first.substr(layer.size()));
    if (found == base.end() || found->second.sizes() != at->second.sizes())
      return std::numeric_limits<double>::infinity();
    const at::Tensor theirs = found->second.to(at::kFloat);
    difference += (at->second.to(at::kFloat) - theirs).square().sum().item<double>();
    norm += theirs.square().sum().item<double>();
  }
  return norm > 0 ? difference / norm : std::numeric_limits<double>::infinity();
}

// What turns --base into this model: what its spec.json says, or what config and weights tell.
unet::Spec recovered_spec(const InspectOptions& options, const unet::Spec& own, const Invocation& invocation) {
  const unet::Spec base = unet::load_architecture(options.base);
  if (!base.removed.empty())
    throw runtime::usage_error("--base ", options.base, " is pruned itself; give the full model");
  if (!own.removed.empty()) {
    const unet::Match match = unet::match_programs(unet::build_base(base.base), unet::build_base(own.base));
    if (!match.matches()) {
      throw runtime::input_error(options.model, ": its spec.json is of another base than ", options.base, ": ",
                                 match.difference);
    }
    return own;
  }
  const c10::InferenceMode inference;
  unet::LayerDistance distance;
  runtime::TensorMap student, teacher;
  if (holds_weights(options.model) && holds_weights(options.base)) {
    student = unet::load_model(options.model, options.variant).weights;
    teacher = unet::load_model(options.base).weights;
    distance = [&](const std::string& a, const std::string& b) { return layer_distance(student, teacher, a, b); };
  }
  unet::Spec spec = unet::recover_spec(own.base, base.base, distance);
  spec.made_by = provenance(invocation);
  spec.made_by["recovered_from"] = distance ? "config and weights" : "config";
  return spec;
}

void print_removals(const unet::Spec& spec) {
  std::printf("\nshell %s, removed from the base:\n", spec.shell == unet::Shell::keep ? "keep" : "drop");
  for (const unet::Removal& removal : spec.removed)
    std::printf("  %s %s\n", removal.how == unet::How::drop ? "drop  " : "bypass", removal.layer.c_str());
}

void check_inspect_options(const InspectOptions& options, const CommonOptions& common, const Json& settings) {
  check_geometry(options.latent, options.tokens);
  if (!options.base.empty() && !options.spec.empty())
    throw runtime::usage_error("inspect: --base recovers a spec, --spec gives one; choose one of them");
  if (options.output.empty()) return;
  if (options.base.empty()) throw runtime::usage_error("inspect: --output writes a recovered spec and needs --base");
  check_result(options.output, common, settings);
}

}  // namespace

void run_inspect(const Invocation& invocation) {
  const auto [options, common, settings] = parse_command<InspectOptions>(invocation, {"model"});
  require_option(options.model, "MODEL", invocation);
  check_inspect_options(options, common, settings);
  unet::Spec spec = unet::load_architecture(options.model);
  if (!options.base.empty()) spec = recovered_spec(options, spec, invocation);
  if (!options.output.empty() && !common.dry_run) runtime::write_json(options.output, unet::spec_json(spec));
  if (!options.spec.empty()) spec = load_spec_for(options.spec, spec);
  const unet::Program base = unet::build_base(spec.base, {options.latent, options.latent, options.tokens});
  const unet::Program pruned = unet::prune(base, spec);
  const Remains remains(base, spec);
  if (!options.diff.empty()) {
    print_diff(base, remains, Remains(base, load_spec_for(options.diff, spec)), common.json);
    return;
  }
  if (!common.json) {
    print_map(base, pruned, remains, options.steps);
    if (!options.base.empty()) print_removals(spec);
    return;
  }
  Json units = Json::array();
  for (std::size_t i = 0; i < remains.units.size(); ++i) units.push_back(unit_json(remains.units[i], remains.fates[i]));
  Json result = {{"class", base.config.class_name()},
                 {"params", pruned.params()},
                 {"macs", pruned.macs()},
                 {"units", units},
                 {"base", {{"params", base.params()}, {"macs", base.macs()}}}};
  if (!options.base.empty()) result["spec"] = unet::spec_json(spec);
  if (options.steps) result["steps"] = steps_json(pruned);
  std::cout << runtime::dump_json(result);
}

}  // namespace laptopdiff::experiments
