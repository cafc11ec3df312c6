#include "pruning/scores.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <sstream>

#include "pruning/presets.h"
#include "runtime/error.h"

namespace laptopdiff::pruning {
namespace {

using runtime::cat;
using runtime::input_error;
using runtime::Json;
using runtime::ObjectReader;
using runtime::usage_error;

constexpr const char* kFormat = "laptopdiff.scores/1";

Json estimate_json(const Estimate& estimate, Json row) {
  row["score"] = estimate.value ? Json(*estimate.value) : Json();
  row["stderr"] = estimate.value ? Json(estimate.standard_error) : Json();
  if (!estimate.why_null.empty()) row["why_null"] = estimate.why_null;
  return row;
}

Estimate read_estimate(ObjectReader& in) {
  Estimate estimate;
  if (in.has("score")) estimate.value = in.required<double>("score");
  else in.ignore("score");
  estimate.standard_error = in.get<double>("stderr", 0);
  estimate.why_null = in.get<std::string>("why_null", "");
  return estimate;
}

void read_units(const Json& list, Scores& scores, const std::string& where) {
  const unet::Program base = unet::build_base(scores.base);
  scores.units = unet::find_units(base, scores.shell);
  if (!list.is_array() || list.size() != scores.units.size()) {
    throw input_error(where, ": `units` must list the ", scores.units.size(), " units of its base");
  }
  for (std::size_t i = 0; i < list.size(); ++i) {
    ObjectReader in(list[i], cat(where, ": units[", i, "]"));
    const unet::Unit& unit = scores.units[i];
    const auto layer = in.required<std::string>("layer");
    if (layer != unit.layer)
      throw input_error(in.where(), ": is `", layer, "`, expected `", unit.layer, "` in execution order");
    for (const auto& [key, expected] : {std::pair{"params", unit.params}, std::pair{"macs", unit.macs}}) {
      const auto value = in.get<std::int64_t>(key, expected);
      if (value != expected) throw input_error(in.where(), ": `", key, "` is ", value, ", this base gives ", expected);
    }
    in.ignore("kind");
    scores.unit_scores.push_back(read_estimate(in));
    in.finish();
  }
}

void read_shells(const Json& list, Scores& scores, const std::string& where) {
  if (list.is_null()) return;
  if (!list.is_array()) throw input_error(where, ": `shells` must be a list");
  for (std::size_t i = 0; i < list.size(); ++i) {
    ObjectReader in(list[i], cat(where, ": shells[", i, "]"));
    ShellScore shell;
    shell.path = in.required<std::string>("path");
    for (const std::string& layer : in.required<std::vector<std::string>>("units")) {
      const auto found =
          std::find_if(scores.units.begin(), scores.units.end(), [&](const unet::Unit& u) { return u.layer == layer; });
      if (found == scores.units.end()) throw input_error(in.where(), ": `", layer, "` is not a unit of the base");
      shell.units.push_back(static_cast<int>(found - scores.units.begin()));
    }
    shell.params = in.required<std::int64_t>("params");
    shell.macs = in.required<std::int64_t>("macs");
    shell.score = read_estimate(in);
    in.finish();
    scores.shells.push_back(std::move(shell));
  }
}

Gram read_gram(const Json& rows, std::size_t n, const std::string& where) {
  Gram gram;
  if (rows.is_null()) return gram;
  if (!rows.is_array() || rows.size() != n)
    throw input_error(where, ": `gram` must have ", n, " rows (units, then shells)");
  for (std::size_t i = 0; i < n; ++i) {
    if (!rows[i].is_array() || rows[i].size() != n)
      throw input_error(where, ": gram[", i, "] must have ", n, " entries");
    std::vector<std::optional<double>> row;
    for (const Json& entry : rows[i]) {
      row.push_back(entry.is_null()
                        ? std::nullopt
                        : std::optional(ObjectReader::convert<double>(entry, cat(where, ": gram[", i, "]"))));
    }
    gram.push_back(std::move(row));
  }
  return gram;
}

Json gram_json(const Gram& gram) {
  Json rows = Json::array();
  for (const auto& row : gram) {
    Json entries = Json::array();
    for (const auto& entry : row) entries.push_back(entry ? Json(*entry) : Json());
    rows.push_back(std::move(entries));
  }
  return rows;
}

// A bin's estimates for `names`, in their order.
std::vector<Estimate> read_estimates(const Json& list, const std::vector<std::string>& names, const std::string& what,
                                     const std::string& where) {
  if (!list.is_array() || list.size() != names.size()) {
    throw input_error(where, ": `", what, "` must have ", names.size(), " entries, as the scores' own `", what, "`");
  }
  std::vector<Estimate> estimates;
  for (std::size_t i = 0; i < names.size(); ++i) {
    ObjectReader in(list[i], cat(where, ": ", what, "[", i, "] (", names[i], ")"));
    estimates.push_back(read_estimate(in));
    in.finish();
  }
  return estimates;
}

Json estimates_json(const std::vector<Estimate>& estimates) {
  Json list = Json::array();
  for (const Estimate& estimate : estimates) list.push_back(estimate_json(estimate, Json::object()));
  return list;
}

Json bin_json(const ScoreBin& bin) {
  Json json = {{"timesteps", {bin.first, bin.last}},
               {"samples", bin.samples},
               {"units", estimates_json(bin.unit_scores)},
               {"shells", estimates_json(bin.shell_scores)}};
  if (!bin.gram.empty()) json["gram"] = gram_json(bin.gram);
  return json;
}

ScoreBin read_bin(const Json& json, const Scores& scores, const std::string& where) {
  ObjectReader in(json, where);
  ScoreBin bin;
  const auto range = in.required<std::vector<std::int64_t>>("timesteps");
  if (range.size() != 2 || range[0] < 0 || range[0] >= range[1] || range[1] > std::numeric_limits<int>::max())
    throw input_error(where, ": `timesteps` must be [first, last) with 0 <= first < last");
  bin.first = static_cast<int>(range[0]);
  bin.last = static_cast<int>(range[1]);
  bin.samples = in.required<std::int64_t>("samples");
  if (bin.samples < 0) throw input_error(where, ": `samples` is ", bin.samples, ", expected at least 0");
  std::vector<std::string> layers, shells;
  for (const unet::Unit& unit : scores.units) layers.push_back(unit.layer);
  for (const ShellScore& shell : scores.shells) shells.push_back(shell.path);
  bin.unit_scores = read_estimates(in.raw("units"), layers, "units", where);
  bin.shell_scores = read_estimates(in.raw("shells"), shells, "shells", where);
  bin.gram = read_gram(in.raw("gram"), layers.size() + shells.size(), where);
  in.finish();
  return bin;
}

void read_bins(const Json& list, Scores& scores, const std::string& where) {
  if (list.is_null()) return;
  if (!list.is_array() || list.empty()) throw input_error(where, ": `bins` must be a list of at least one interval");
  for (std::size_t i = 0; i < list.size(); ++i) {
    ScoreBin bin = read_bin(list[i], scores, cat(where, ": bins[", i, "]"));
    if (i > 0 && bin.first != scores.bins.back().last) {
      throw input_error(where, ": bins[", i, "] begins at timestep ", bin.first, ", the one before ends at ",
                        scores.bins.back().last);
    }
    scores.bins.push_back(std::move(bin));
  }
}

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

Json scores_json(const Scores& scores) {
  Json units = Json::array(), shells = Json::array();
  for (std::size_t i = 0; i < scores.units.size(); ++i) {
    const unet::Unit& unit = scores.units[i];
    units.push_back(estimate_json(
        scores.unit_scores[i],
        {{"layer", unit.layer}, {"kind", unet::unit_name(unit.kind)}, {"params", unit.params}, {"macs", unit.macs}}));
  }
  for (const ShellScore& shell : scores.shells) {
    Json layers = Json::array();
    for (const int unit : shell.units) layers.push_back(scores.units[static_cast<std::size_t>(unit)].layer);
    shells.push_back(estimate_json(
        shell.score, {{"path", shell.path}, {"units", layers}, {"params", shell.params}, {"macs", shell.macs}}));
  }
  Json json = {
      {"format", kFormat},
      {"criterion", scores.criterion},
      {"base",
       {{"class", scores.base.class_name()}, {"config", scores.base.raw}, {"weights_sha256", scores.weights_sha256}}},
      {"shell", scores.shell == unet::Shell::drop ? "drop" : "keep"},
      {"units", units},
      {"shells", shells},
      {"samples", scores.samples},
      {"calibration_sha256", scores.calibration_sha256},
      {"made_by", scores.made_by}};
  if (!scores.gram.empty()) json["gram"] = gram_json(scores.gram);
  if (!scores.stability.is_null()) json["stability"] = scores.stability;
  if (!scores.bins.empty()) {
    Json bins = Json::array();
    for (const ScoreBin& bin : scores.bins) bins.push_back(bin_json(bin));
    json["bins"] = std::move(bins);
  }
  return json;
}

Scores read_scores(const std::filesystem::path& path) {
  const Json json = runtime::read_json(path);
  const std::string where = path.string();
  ObjectReader in(json, where);
  const auto format = in.required<std::string>("format");
  if (format != kFormat) throw input_error(where, ": `format` is \"", format, "\", expected \"", kFormat, "\"");
  Scores scores;
  scores.criterion = in.required<std::string>("criterion");
  ObjectReader base(in.raw("base"), where + ": base");
  Json config = base.raw("config");
  if (config.is_object()) config["_class_name"] = base.required<std::string>("class");
  scores.base = unet::parse_config(config, where + ": base.config");
  scores.weights_sha256 = base.get<std::string>("weights_sha256", "");
  base.finish();
  const auto shell = in.get<std::string>("shell", "drop");
  if (shell != "drop" && shell != "keep")
    throw input_error(where, ": `shell` is \"", shell, "\", expected drop or keep");
  scores.shell = shell == "drop" ? unet::Shell::drop : unet::Shell::keep;
  read_units(in.raw("units"), scores, where);
  read_shells(in.raw("shells"), scores, where);
  scores.gram = read_gram(in.raw("gram"), scores.units.size() + scores.shells.size(), where);
  read_bins(in.raw("bins"), scores, where);
  scores.samples = in.get<std::int64_t>("samples", 0);
  scores.calibration_sha256 = in.get<std::string>("calibration_sha256", "");
  scores.stability = in.raw("stability");
  scores.made_by = in.raw("made_by");
  in.finish();
  return scores;
}

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
