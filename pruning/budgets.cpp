#include "pruning/budgets.h"

#include <algorithm>
#include <cmath>
#include <sstream>

#include "pruning/presets.h"
#include "runtime/error.h"

namespace laptopdiff::pruning {
namespace {

using runtime::usage_error;

struct Suffix {
  const char* text;
  double factor;
};
const std::vector<Suffix>& suffixes(Resource resource) {
  static const std::vector<Suffix> kCounts = {{"K", 1e3}, {"k", 1e3}, {"M", 1e6}, {"G", 1e9}, {"B", 1e9}, {"T", 1e12}},
                                   kTimes = {{"s", 1}, {"ms", 1e-3}},
                                   kBytes = {{"KiB", 0x1p10}, {"MiB", 0x1p20}, {"GiB", 0x1p30}, {"TiB", 0x1p40}};
  return resource == Resource::latency ? kTimes : resource == Resource::activations ? kBytes : kCounts;
}

std::string unit_names(Resource resource) {
  std::vector<std::string> units;
  for (const Suffix& suffix : suffixes(resource)) units.emplace_back(suffix.text);
  return runtime::join(units);
}

// A number without a unit: a share where it can be one. 1.5 is neither that nor a whole number of anything.
double plain_amount(double value, Resource resource, const CostModel& costs, const std::string& part) {
  if (value <= 1) return value * costs.total(resource);
  if (value != std::floor(value)) {
    throw usage_error("--budget ", part, ": a share is at most 1, and an amount of ", resource_name(resource),
                      " a whole number or one with a unit (", unit_names(resource), ")");
  }
  return value;
}

double parse_kept(const std::string& text, Resource resource, const CostModel& costs, const std::string& part) {
  if (!text.empty() && text.front() == '@') {
    unet::Spec spec;
    spec.base = costs.base().config;
    spec.removed = preset_removals(text.substr(1), costs.base());
    return costs.amount(unet::prune(costs.base(), spec), resource);
  }
  std::size_t used = 0;
  double value = -1;
  try {
    value = std::stod(text, &used);
  } catch (const std::exception&) {
    used = 0;
  }
  if (used > 0 && std::isfinite(value) && value >= 0) {
    const std::string unit = text.substr(used);
    if (unit.empty()) return plain_amount(value, resource, costs, part);
    for (const Suffix& suffix : suffixes(resource)) {
      if (unit == suffix.text) return value * suffix.factor;
    }
  }
  throw usage_error("--budget ", part, ": expected a share like 0.5, an amount (units: ", unit_names(resource),
                    "), or @PRESET");
}

KeepBudget parse_budget(const std::string& part, const CostModel& costs) {
  const std::size_t equals = part.find('=');
  const std::string name = part.substr(0, equals);
  const std::vector<std::string> names = resource_names();
  const auto row = std::find(names.begin(), names.end(), name);
  if (equals == std::string::npos || row == names.end()) {
    throw usage_error("--budget ", part, ": expected RESOURCE=0.5 (the share that is kept), RESOURCE one of ",
                      runtime::join(names));
  }
  const auto resource = static_cast<Resource>(row - names.begin());
  return {resource, parse_kept(part.substr(equals + 1), resource, costs, part)};
}

int unit_index(const Scores& scores, const std::string& layer, const std::string& flag) {
  std::vector<std::string> known, below;
  for (std::size_t i = 0; i < scores.units.size(); ++i) {
    const std::string& name = scores.units[i].layer;
    if (name == layer) return static_cast<int>(i);
    known.push_back(name);
    if (name.rfind(layer + ".", 0) == 0) below.push_back(name);
  }
  if (!below.empty())
    throw usage_error(flag, ": `", layer, "` is no unit, but holds some; name those: ", runtime::join(below, ","));
  throw usage_error(flag, ": no unit `", layer, "`", runtime::did_you_mean(layer, known));
}

QuadraticForm make_form(const Scores& scores) {
  QuadraticForm form;
  form.rows = static_cast<int>(scores.gram.size());
  for (const auto& row : scores.gram) {
    for (const auto& entry : row) form.values.push_back(entry.value_or(0));  // rows without a value are fixed to keep
  }
  return form;
}

}  // namespace

std::vector<KeepBudget> parse_budgets(const std::string& text, const CostModel& costs) {
  std::vector<KeepBudget> budgets;
  std::stringstream parts(text);
  for (std::string part; std::getline(parts, part, ',');) {
    const KeepBudget budget = parse_budget(part, costs);
    for (const KeepBudget& other : budgets) {
      if (other.resource == budget.resource)
        throw usage_error("--budget ", text, ": `", resource_name(budget.resource), "` is given twice");
    }
    budgets.push_back(budget);
  }
  if (budgets.empty()) throw usage_error("--budget is empty; for example --budget params=0.5");
  return budgets;
}

Problem make_problem(const Scores& scores, const CostModel& costs, const std::vector<KeepBudget>& budgets,
                     const std::vector<std::string>& must_keep, const std::vector<std::string>& must_remove) {
  Problem problem;
  const bool has_gram = !scores.gram.empty();
  std::vector<Resource> resources;
  for (const KeepBudget& budget : budgets) {
    const double total = costs.total(budget.resource);
    problem.budgets.push_back({resource_name(budget.resource), total - budget.kept, total});
    resources.push_back(budget.resource);
  }
  const auto cost = [&](const std::string& path) {
    return costs.freed({{path, unet::How::bypass}}, scores.shell, resources);
  };
  for (std::size_t i = 0; i < scores.units.size(); ++i) {
    const unet::Unit& unit = scores.units[i];
    const int index = static_cast<int>(i);
    problem.items.push_back({unit.layer, scores.unit_scores[i].value.value_or(0), cost(unit.layer),
                             has_gram ? std::optional(index) : std::nullopt});
    if (!scores.unit_scores[i].value) problem.fixed.push_back({index, Decision::keep});
  }
  for (std::size_t i = 0; i < scores.shells.size(); ++i) {
    const ShellScore& shell = scores.shells[i];
    Group group{shell.units, std::nullopt};
    if (shell.score.value) {
      group.all = Item{shell.path, *shell.score.value, cost(shell.path),
                       has_gram ? std::optional(static_cast<int>(scores.units.size() + i)) : std::nullopt};
    } else if (!shell.units.empty()) {
      // Without its blocks the output was not finite: the one that matters most stays.
      const auto worth = [&](int unit) {
        return scores.unit_scores[static_cast<std::size_t>(unit)].value.value_or(1e300);
      };
      const auto most =
          std::max_element(shell.units.begin(), shell.units.end(), [&](int a, int b) { return worth(a) < worth(b); });
      problem.fixed.push_back({*most, Decision::keep});
    }
    problem.groups.push_back(std::move(group));
  }
  for (const std::string& layer : must_keep)
    problem.fixed.push_back({unit_index(scores, layer, "--must-keep"), Decision::keep});
  for (const std::string& layer : must_remove)
    problem.fixed.push_back({unit_index(scores, layer, "--must-remove"), Decision::remove});
  if (has_gram) problem.form = make_form(scores);
  return problem;
}

std::vector<unet::Removal> removals_of(const Scores& scores, const Mask& mask) {
  std::vector<unet::Removal> removals;
  for (std::size_t i = 0; i < mask.size(); ++i) {
    if (mask[i] != 0) removals.push_back({scores.units[i].layer, unet::How::bypass});
  }
  return removals;
}

}  // namespace laptopdiff::pruning
