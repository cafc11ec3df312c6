#include "pruning/scores.h"

#include <algorithm>
#include <limits>

#include "pruning/score_checks.h"
#include "runtime/error.h"

namespace laptopdiff::pruning {
namespace {

using runtime::cat;
using runtime::input_error;
using runtime::Json;
using runtime::ObjectReader;

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
  if (bin.gram.empty() && !scores.gram.empty() && bin.samples > 0)
    throw input_error(where, ": has ", bin.samples, " samples, but no `gram`, which these scores have; score again");
  if (!bin.gram.empty() && scores.gram.empty())
    throw input_error(where, ": has a `gram`, but the scores have none; score again");
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
  in.require_format(kFormat);
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
  check_scores(scores, where);
  return scores;
}

}  // namespace laptopdiff::pruning
