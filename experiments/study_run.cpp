// Runs what a study's arms ask for.
#include <algorithm>
#include <set>

#include "experiments/criterion_needs.h"
#include "experiments/study.h"
#include "pruning/solve.h"
#include "runtime/error.h"
#include "runtime/progress.h"
#include "runtime/stop.h"
#include "unet/program.h"

namespace laptopdiff::experiments {
namespace fs = std::filesystem;
namespace {

using runtime::cat;

// True where the solver measures true losses, for which it needs the study's calibration set.
bool measures(const Json& solve) {
  const Json solver = solve.value("solver", Json()), verify = solve.value("verify", Json());
  if (verify.is_number() && verify > 0) return true;
  return solver.is_string() && std::any_of(pruning::solvers().begin(), pruning::solvers().end(), [&](const auto& row) {
           return solver == row.name && row.measures == pruning::Measures::yes;
         });
}

// Runs the stages of one study.
class StudyRun {
 public:
  StudyRun(const Study& study, const fs::path& folder, const Json& common)
      : study_(study), folder_(folder), stages_(folder, common) {}

  Json run(const std::vector<Arm>& arms) {
    const StageResult calibration = calibrate(study_.calibrate);
    calibration_ = calibration.output;
    const StageResult scores = score(score_settings(study_.score, Json::object()));
    scores_ = scores.output;
    Json shared = {{"calibration", relative(calibration.output)}, {"scores", relative(scores.output)}};
    if (!study_.audit.is_null()) {
      const StageResult audit = stages_.run({"audit",
                                             with(study_.audit, {{"model", study_.pipeline},
                                                                 {"calibration", calibration.output.string()},
                                                                 {"scores", scores.output.string()}}),
                                             "audit.json"});
      shared["audit"] = relative(audit.output);
    }
    Json results = {
        {"format", "laptopdiff.results/1"}, {"name", study_.name}, {"shared", shared}, {"arms", Json::object()}};
    for (std::size_t i = 0; i < arms.size(); ++i) {
      runtime::say(cat("-- arm ", i + 1, " of ", arms.size(), ": ", arms[i].name));
      runtime::throw_if_stopped("finished stages are kept; run the same command again to go on");
      results["arms"][arms[i].name] = run_arm(arms[i]);
      runtime::write_json(folder_ / "results.partial.json", results);  // what is there so far, for a look
    }
    if (!study_.loss.is_null()) add_losses(results);
    add_declines(results);
    for (const char* verb : {"calibrate", "score", "audit", "solve", "distill", "sample", "evaluate"}) {
      results["seconds"][verb] = stages_.seconds_of(verb);
    }
    for (const fs::path& latents : latents_) fs::remove(latents);
    if (!stages_.ran_any()) runtime::say(folder_.string() + ": this sweep is complete already");
    return results;
  }

 private:
  static Json with(Json settings, const Json& more) {
    settings.update(more);
    return settings;
  }
  std::string relative(const fs::path& path) const { return fs::relative(path, folder_).string(); }

  StageResult calibrate(const Json& settings) {
    return stages_.run({"calibrate", with(settings, {{"pipeline", study_.pipeline}, {"data", study_.train}}),
                        "calibration.safetensors"});
  }
  StageResult score(const Json& settings) {
    Json own = with(settings, {{"model", study_.pipeline}});
    if (const auto* criterion = criterion_of(settings); criterion != nullptr && is_calibrated(*criterion))
      own["calibration"] = calibration_.string();
    return stages_.run({"score", own, "scores.json"});
  }

  Json run_arm(const Arm& arm) {
    Json row = {{"group", arm.group}, {"at", arm.at}, {"steps", 0}, {"files", Json::object()}};
    Json sample = with(arm.sample.is_null() ? Json::object() : arm.sample, {{"pipeline", study_.pipeline}});
    if (!study_.prompts.empty()) sample["prompts"] = study_.prompts;
    if (!arm.solve.is_null()) {
      Json solve = with(arm.solve, {{"model", study_.pipeline}});
      if (!arm.score.is_null()) solve["scores"] = score(arm.score).output.string();
      if (measures(solve)) solve["calibration"] = calibration_.string();
      const StageResult spec = stages_.run({"solve", solve, "spec.json"});
      row["files"]["spec"] = relative(spec.output);
      if (arm.distill.is_null()) {
        sample["spec"] = spec.output.string();
      } else {
        const StageResult student = train(arm, spec.output);
        const Json result = runtime::read_json(student.output / "result.json");
        row["steps"] = result["steps"];
        row["files"]["distill"] = relative(student.output);
        sample["unet"] = (student.output / "student").string();
      }
      const Json totals = runtime::read_json(spec.output)["totals"];
      row["params"] = totals["params"]["pruned"];
      row["macs"] = totals["macs"]["pruned"];
    } else {
      const Json base = base_totals();
      row["params"] = base["params"];
      row["macs"] = base["macs"];
    }
    if (arm.sample.is_null()) return row;
    const StageResult images = stages_.run({"sample", sample, "images"});
    row["files"]["images"] = relative(images.output);
    const StageResult metrics =
        stages_.run({"evaluate", with(arm.evaluate, evaluation_inputs(arm, images.output)), "metrics.json"});
    row["files"]["metrics"] = relative(metrics.output);
    const Json numbers = runtime::read_json(metrics.output);
    for (const auto& [name, metric] : numbers["metrics"].items()) row[name] = metric["value"];
    return row;
  }

  StageResult train(const Arm& arm, const fs::path& spec) {
    Json distill = with(arm.distill, {{"pipeline", study_.pipeline}, {"spec", spec.string()}});
    distill["data"]["folder"] = study_.train;
    // Arms that train on the same pictures share their latents.
    Json beside = Json::object();
    if (!distill.contains("cache")) {
      const std::string data = stages_.digest(
          {{"pipeline", study_.pipeline}, {"data", distill["data"]}, {"seed", distill.value("seed", Json(0))}});
      const fs::path latents = folder_ / "stages" / cat("latents-", data, ".safetensors");
      latents_.insert(latents);
      beside["cache"] = latents.string();
    }
    return stages_.run({"distill", distill, "run", beside});
  }

  Json evaluation_inputs(const Arm& arm, const fs::path& images) const {
    Json inputs = {{"images", images.string()},
                   {"reference", study_.reference},
                   {"models", study_.models},
                   {"count", arm.sample.value("count", 0)}};
    if (!study_.prompts.empty()) inputs.update({{"prompts", study_.prompts}, {"labels", study_.prompts}});
    return inputs;
  }

  // The true output loss of every arm's mask, before any training: all of them in one audit, which shares their work.
  void add_losses(Json& results) {
    std::vector<std::string> specs;  // each once, in the order of the audit's rows
    std::map<std::string, std::size_t> place;
    for (const auto& [name, row] : results["arms"].items()) {
      if (!row["files"].contains("spec")) continue;
      const std::string spec = row["files"]["spec"].get<std::string>();
      if (place.try_emplace(spec, specs.size()).second) specs.push_back((folder_ / spec).string());
    }
    if (specs.empty()) return;
    Json settings = {{"keep", Json::array()}, {"random_masks", 0}};
    settings.update(study_.loss);
    Json own = study_.calibrate;
    own.merge_patch(settings.value("calibrate", Json::object()));
    settings.erase("calibrate");
    const StageResult calibration = calibrate(own);
    const StageResult audit = stages_.run({"audit",
                                           with(settings, {{"model", study_.pipeline},
                                                           {"calibration", calibration.output.string()},
                                                           {"scores", scores_.string()},
                                                           {"specs", specs}}),
                                           "losses.json"});
    results["shared"]["losses"] = relative(audit.output);
    // By their order: a stage is found again by what its files hold, wherever they lay when it ran.
    Json masks = Json::array();
    const Json losses = runtime::read_json(audit.output);
    for (const Json& mask : losses.at("rows")) {
      if (mask.at("kind") == "spec") masks.push_back(mask);
    }
    for (auto& [name, row] : results["arms"].items()) {
      if (!row["files"].contains("spec")) continue;
      const Json& mask = masks.at(place.at(row["files"]["spec"].get<std::string>()));
      if (mask.at("true").is_null()) continue;  // its output was not finite
      row["loss"] = mask["true"];
      row["loss_stderr"] = mask["stderr"];
    }
  }

  Json base_totals() {
    const Json scores = runtime::read_json(scores_);
    Json raw = scores["base"]["config"];
    raw["_class_name"] = scores["base"]["class"];
    const unet::Program base = unet::build_base(unet::parse_config(raw, scores_.string()));
    return {{"params", base.params()}, {"macs", base.macs()}};
  }

  // The teacher that was drawn and judged as `row` was: equal on every axis that both have; null: there is none.
  static Json teacher_of(const Json& row, const Json& arms) {
    for (const auto& [name, candidate] : arms.items()) {
      if (candidate["files"].contains("spec")) continue;
      const auto agrees = [&](const auto& axis) {
        return !row["at"].contains(axis.key()) || row["at"][axis.key()] == axis.value();
      };
      const auto axes = candidate["at"].items();
      if (std::all_of(axes.begin(), axes.end(), agrees)) return candidate;
    }
    return nullptr;
  }

  // Decline in percent against the teacher; for FID, where lower is better, the increase.
  static void add_declines(Json& results) {
    const Json arms = results["arms"];
    for (auto& [name, row] : results["arms"].items()) {
      const Json base = teacher_of(row, arms);
      if (base.is_null()) continue;
      for (const char* metric : {"clip", "pick", "fid", "accuracy"}) {
        if (!row.contains(metric) || !base.contains(metric) || base[metric].get<double>() == 0) continue;
        const double own = row[metric].get<double>(), reference = base[metric].get<double>();
        row["decline_percent"][metric] =
            100 * (std::string(metric) == "fid" ? own - reference : reference - own) / std::abs(reference);
      }
    }
  }

  const Study& study_;
  fs::path folder_;
  StageRunner stages_;
  fs::path calibration_, scores_;
  std::set<fs::path> latents_;  // of the arms' pictures; gone with the end of the sweep
};

}  // namespace

Json run_study(const Study& study, const std::vector<Arm>& arms, const fs::path& folder, const Json& common) {
  return StudyRun(study, folder, common).run(arms);
}

}  // namespace laptopdiff::experiments
