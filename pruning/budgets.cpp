#include "pruning/budgets.h"

#include <algorithm>
#include <cmath>
#include <sstream>

#include "pruning/presets.h"
#include "runtime/error.h"

namespace laptopdiff::pruning {
namespace {

using runtime::usage_error;

double amount(const unet::Program& program, Resource resource) {
  return static_cast<double>(resource == Resource::params ? program.params() : program.macs());
}

double parse_kept(const std::string& text, Resource resource, const unet::Program& base, const std::string& part) {
  if (!text.empty() && text.front() == '@') {
    unet::Spec spec;
    spec.base = base.config;
    spec.removed = preset_removals(text.substr(1), base);
    return amount(unet::prune(base, spec), resource);
  }
  std::size_t used = 0;
  double value = 0;
  try {
    value = std::stod(text, &used);
  } catch (const std::exception&) {
    used = 0;
  }
  if (used == 0 || used != text.size() || !std::isfinite(value) || value < 0) {
    throw usage_error("--budget ", part, ": expected a share like 0.5, an amount, or @PRESET");
  }
  return value <= 1 ? value * amount(base, resource) : value;
}

std::vector<double> costs(const std::vector<KeepBudget>& budgets, std::int64_t params, std::int64_t macs) {
  std::vector<double> cost;
  for (const KeepBudget& budget : budgets)
    cost.push_back(static_cast<double>(budget.resource == Resource::params ? params : macs));
  return cost;
}

int unit_index(const Scores& scores, const std::string& layer, const std::string& flag) {
  std::vector<std::string> known;
  for (std::size_t i = 0; i < scores.units.size(); ++i) {
    if (scores.units[i].layer == layer) return static_cast<int>(i);
    known.push_back(scores.units[i].layer);
  }
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

std::vector<KeepBudget> parse_budgets(const std::string& text, const unet::Program& base) {
  std::vector<KeepBudget> budgets;
  std::stringstream parts(text);
  for (std::string part; std::getline(parts, part, ',');) {
    const std::size_t equals = part.find('=');
    const std::string name = part.substr(0, equals);
    if (equals == std::string::npos || (name != "params" && name != "macs")) {
      throw usage_error("--budget ", part, ": expected params=0.5 or macs=0.5 (the share that is kept)");
    }
    KeepBudget budget;
    budget.resource = name == "params" ? Resource::params : Resource::macs;
    budget.kept = parse_kept(part.substr(equals + 1), budget.resource, base, part);
    for (const KeepBudget& other : budgets) {
      if (other.resource == budget.resource) throw usage_error("--budget ", text, ": `", name, "` is given twice");
    }
    budgets.push_back(budget);
  }
  if (budgets.empty()) throw usage_error("--budget is empty; for example --budget params=0.5");
  return budgets;
}

Problem make_problem(const Scores& scores, const unet::Program& base, const std::vector<KeepBudget>& budgets,
                     const std::vector<std::string>& must_keep, const std::vector<std::string>& must_remove) {
  Problem problem;
  const bool has_gram = !scores.gram.empty();
  for (const KeepBudget& budget : budgets) {
    const double total = amount(base, budget.resource);
    problem.budgets.push_back({budget.resource == Resource::params ? "params" : "macs", total - budget.kept, total});
  }
  for (std::size_t i = 0; i < scores.units.size(); ++i) {
    const unet::Unit& unit = scores.units[i];
    const int index = static_cast<int>(i);
    problem.items.push_back({unit.layer, scores.unit_scores[i].value.value_or(0),
                             costs(budgets, unit.params, unit.macs), has_gram ? std::optional(index) : std::nullopt});
    if (!scores.unit_scores[i].value) problem.fixed.push_back({index, Decision::keep});
  }
  for (std::size_t i = 0; i < scores.shells.size(); ++i) {
    const ShellScore& shell = scores.shells[i];
    Group group{shell.units, std::nullopt};
    if (shell.score.value) {
      group.all = Item{shell.path, *shell.score.value, costs(budgets, shell.params, shell.macs),
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
