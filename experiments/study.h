// A study: the config of `sweep`. Axes become arms; an arm is settings for the stages score, solve, distill, sample,
// evaluate.
//
//   {
//     "pipeline": ..., "train": ..., "reference": ..., "prompts": ..., "models": ...,
//     "calibrate": {...}, "audit": {...}, "loss": {...},             shared by all arms
//     "score": {...}, "solve": {...}, "distill": {...}, "sample": {...}, "evaluate": {...},   defaults of every arm
//     "arms": { "teacher": {}, "pruned": {"solve": {...}}, "laptop": {"solve": {...}, "distill": {...}} },
//     "axes": { "seed": {"set": ["distill.seed"], "values": [0, 1, 2]} }
//   }
//
// An arm with neither `solve` nor `distill` is the teacher; with `solve` alone it is pruned and not retrained. Axes
// multiply: arm "laptop" with axes keep and seed of several values gives "laptop keep=0.5 seed=1", ... An axis leaves
// an arm alone that has nothing it sets: a teacher's training, the budget of a preset. Arms with equal settings of a
// stage share it. Defaults of `score` are left out where they say nothing to an arm's criterion, such as a number of
// samples to one that looks at the weights alone. A study of masks alone says `"sample": null`: no pictures are drawn;
// `loss` has the true output loss of every arm's mask measured, on inputs that no mask has seen where it says
// `"calibrate": {"seed": ...}`.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "experiments/stage.h"

namespace laptopdiff::experiments {

struct Study {
  std::string name, pipeline, train, reference, prompts, models;
  Json calibrate = Json::object(), score = Json::object(), audit, loss, solve = Json::object(),
       distill = Json::object(), sample = Json::object(), evaluate = Json::object(), arms = Json::object(),
       axes = Json::object();
  template <typename V>
  void fields(V& v) {
    v("name", name, "what the report calls it");
    v("pipeline", pipeline, "diffusers pipeline folder: the teacher");
    v("train", train, "data folder for calibration and training");
    v("reference", reference, "data folder of real pictures for FID");
    v("prompts", prompts, "prompts (with labels, .jsonl) for sampling and evaluation; none: an unconditional teacher");
    v("models", models, "folder with clip/, pick/, classifier/");
    v("calibrate", calibrate, "options of `calibrate`");
    v("score", score, "options of `score` for every arm");
    v("audit", audit, "options of `audit`, on the scores that `score` alone gives; null: no audit");
    v("loss", loss, "options of the `audit` that measures every arm's mask; null: masks are not measured");
    v("solve", solve, "options of `solve` for every arm");
    v("distill", distill, "options of `distill` for every arm");
    v("sample", sample, "options of `sample` for every arm; null: no pictures");
    v("evaluate", evaluate, "options of `evaluate` for every arm");
    v("arms", arms, "name -> {score, solve, distill, sample, evaluate}: what the arm changes");
    v("axes", axes, "name -> {set: [paths], values: [...], arms: [names]}");
  }
};

// One line of the study.
struct Arm {
  std::string name;                // unique
  std::string group;               // the name under `arms`
  std::map<std::string, Json> at;  // axis -> value
  // Merged. Null where the arm has none: score and solve of a teacher, distill without training, sample without
  // pictures.
  Json score, solve, distill, sample, evaluate;
};

// Throws Error(usage/bad_input) for unknown keys, axes over paths that are not stages, no arms.
Study parse_study(const Json& json, const std::string& where);
std::vector<Arm> expand_arms(const Study& study, const std::string& where);

// Runs what is missing and writes results.json (and the shared stages' places) into `folder`. Returns the results.
Json run_study(const Study& study, const std::vector<Arm>& arms, const std::filesystem::path& folder,
               const Json& common);

}  // namespace laptopdiff::experiments
