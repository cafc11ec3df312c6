// `inspect`: the map of a U-Net, without reading its weights.
#include <cstdio>
#include <iostream>
#include <set>

#include "experiments/command.h"
#include "experiments/verbs.h"
#include "runtime/error.h"
#include "runtime/progress.h"
#include "unet/weights.h"

namespace laptopdiff::experiments {
namespace {

using runtime::with_commas;

// Beyond these the MACs of attention no longer fit 64 bits.
constexpr int kMaxLatent = 2048, kMaxTokens = 1 << 20;

struct InspectOptions {
  std::string model, spec, diff;
  int latent = 0, tokens = 77;
  bool steps = false;
  template <typename V>
  void fields(V& v) {
    v("model", model, "U-Net folder, config.json or pipeline folder");
    v("spec", spec, "spec.json to apply");
    v("diff", diff, "a second spec.json: what the two remove differently");
    v("latent", latent, "latent size that MACs are counted for; 0: the config's");
    v("tokens", tokens, "text tokens that MACs are counted for");
    v("steps", steps, "list every step of the program");
  }
};

std::set<std::string> gone(const unet::Program& base, const unet::Program& pruned) {
  std::set<std::pair<int, int>> present;
  for (const unet::Step& step : pruned.steps) present.emplace(step.position, static_cast<int>(step.kind));
  std::set<std::string> layers;
  for (const unet::Unit& unit : unet::find_units(base)) {
    const unet::Step& first = base.steps[static_cast<std::size_t>(unit.first)];
    if (!present.contains({first.position, static_cast<int>(first.kind)})) layers.insert(unit.layer);
  }
  return layers;
}

Json unit_json(const unet::Unit& unit, bool removed) {
  return {{"layer", unit.layer},
          {"kind", unet::unit_name(unit.kind)},
          {"params", unit.params},
          {"macs", unit.macs},
          {"removed", removed}};
}

std::string percent(std::int64_t part, std::int64_t whole) {
  char text[32];
  std::snprintf(text, sizeof text, "%.2f %%", 100.0 * static_cast<double>(part) / static_cast<double>(whole));
  return text;
}

void print_map(const unet::Program& base, const unet::Program& pruned, const std::set<std::string>& removed,
               bool steps) {
  std::printf("%s, latent %dx%d, %d tokens\n", base.config.class_name(), base.geometry.height, base.geometry.width,
              base.geometry.tokens);
  std::printf("  params %16s\n  MACs   %16s\n  steps  %16zu\n", with_commas(pruned.params()).c_str(),
              with_commas(pruned.macs()).c_str(), pruned.steps.size());
  if (pruned.params() != base.params()) {
    std::printf("  kept %s of the params and %s of the MACs; %zu layers removed\n",
                percent(pruned.params(), base.params()).c_str(), percent(pruned.macs(), base.macs()).c_str(),
                removed.size());
  }
  std::printf("\n  %-58s %-12s %14s %16s\n", "unit", "kind", "params", "MACs");
  for (const unet::Unit& unit : unet::find_units(base)) {
    std::printf("%c %-58s %-12s %14s %16s\n", removed.contains(unit.layer) ? 'x' : ' ', unit.layer.c_str(),
                unet::unit_name(unit.kind), with_commas(unit.params).c_str(), with_commas(unit.macs).c_str());
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

void print_diff(const unet::Program& base, const std::set<std::string>& a, const unet::Spec& other, bool as_json) {
  const std::set<std::string> b = gone(base, unet::prune(base, other));
  Json only_first = Json::array(), only_second = Json::array();
  for (const std::string& layer : a) {
    if (!b.contains(layer)) only_first.push_back(layer);
  }
  for (const std::string& layer : b) {
    if (!a.contains(layer)) only_second.push_back(layer);
  }
  if (as_json) {
    std::cout << runtime::dump_json(
        {{"only_first", only_first}, {"only_second", only_second}, {"common", a.size() - only_first.size()}});
    return;
  }
  for (const Json& layer : only_first) std::cout << "- only the first removes " << layer.get<std::string>() << "\n";
  for (const Json& layer : only_second) std::cout << "+ only the second removes " << layer.get<std::string>() << "\n";
  if (only_first.empty() && only_second.empty()) std::cout << "both remove the same layers\n";
}

}  // namespace

void run_inspect(const Invocation& invocation) {
  const auto [options, common, settings] = parse_command<InspectOptions>(invocation, {"model"});
  require_option(options.model, "MODEL", invocation);
  if (options.latent < 0 || options.latent > kMaxLatent) {
    throw runtime::usage_error("--latent ", options.latent, ": expected 1 to ", kMaxLatent, ", or 0 for the config's");
  }
  if (options.tokens < 1 || options.tokens > kMaxTokens) {
    throw runtime::usage_error("--tokens ", options.tokens, ": expected 1 to ", kMaxTokens);
  }
  unet::Spec spec = unet::load_architecture(options.model);
  if (!options.spec.empty()) spec = load_spec_for(options.spec, spec);
  const unet::Program base = unet::build_base(spec.base, {options.latent, options.latent, options.tokens});
  const unet::Program pruned = unet::prune(base, spec);
  const std::set<std::string> removed = gone(base, pruned);
  if (!options.diff.empty()) {
    print_diff(base, removed, load_spec_for(options.diff, spec), common.json);
    return;
  }
  if (!common.json) {
    print_map(base, pruned, removed, options.steps);
    return;
  }
  Json units = Json::array();
  for (const unet::Unit& unit : unet::find_units(base)) units.push_back(unit_json(unit, removed.contains(unit.layer)));
  Json result = {{"class", base.config.class_name()},
                 {"params", pruned.params()},
                 {"macs", pruned.macs()},
                 {"units", units},
                 {"base", {{"params", base.params()}, {"macs", base.macs()}}}};
  if (options.steps) result["steps"] = steps_json(pruned);
  std::cout << runtime::dump_json(result);
}

}  // namespace laptopdiff::experiments
