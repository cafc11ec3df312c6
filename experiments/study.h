// A study: the config of `sweep`. Axes become arms; an arm is settings for the stages solve, distill, sample, evaluate.
//
//   {
//     "pipeline": ..., "train": ..., "reference": ..., "prompts": ..., "models": ...,
//     "calibrate": {...}, "score": {...}, "audit": {...},            shared by all arms
//     "solve": {...}, "distill": {...}, "sample": {...}, "evaluate": {...},   defaults of every arm
//     "arms": { "teacher": {}, "pruned": {"solve": {...}}, "laptop": {"solve": {...}, "distill": {...}} },
//     "axes": { "seed": {"set": ["distill.seed"], "values": [0, 1, 2]} }
//   }
//
// An arm with neither `solve` nor `distill` is the teacher; with `solve` alone it is pruned and not retrained. Axes
// multiply: arm "laptop" with axes keep and seed of several values gives "laptop keep=0.5 seed=1", ... An axis leaves
// an arm alone that has nothing it sets: a teacher's training, the budget of a preset.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "experiments/stage.h"

namespace laptopdiff::experiments {

struct Study {
  std::string name, pipeline, train, reference, prompts, models;
  Json calibrate = Json::object(), score = Json::object(), audit, solve = Json::object(), distill = Json::object(),
       sample = Json::object(), evaluate = Json::object(), arms = Json::object(), axes = Json::object();
  template <typename V>
  void fields(V& v) {
    v("name", name, "what the report calls it");
    v("pipeline", pipeline, "diffusers pipeline folder: the teacher");
    v("train", train, "data folder for calibration and training");
    v("reference", reference, "data folder of real pictures for FID");
    v("prompts", prompts, "prompts (with labels, .jsonl) for sampling and evaluation");
    v("models", models, "folder with clip/, pick/, classifier/");
    v("calibrate", calibrate, "options of `calibrate`");
    v("score", score, "options of `score`");
    v("audit", audit, "options of `audit`; null: no audit");
    v("solve", solve, "options of `solve` for every arm");
    v("distill", distill, "options of `distill` for every arm");
    v("sample", sample, "options of `sample` for every arm");
    v("evaluate", evaluate, "options of `evaluate` for every arm");
    v("arms", arms, "name -> {solve, distill, sample}: what the arm changes");
    v("axes", axes, "name -> {set: [paths], values: [...], arms: [names]}");
  }
};

// One line of the study.
struct Arm {
  std::string name;                       // unique
  std::string group;                      // the name under `arms`
  std::map<std::string, Json> at;         // axis -> value
  Json solve, distill, sample, evaluate;  // merged; solve and distill are null where the arm has none
};

// Throws Error(usage/bad_input) for unknown keys, axes over paths that are not stages, no arms.
Study parse_study(const Json& json, const std::string& where);
std::vector<Arm> expand_arms(const Study& study, const std::string& where);

// Runs what is missing and writes results.json (and the shared stages' places) into `folder`. Returns the results.
Json run_study(const Study& study, const std::vector<Arm>& arms, const std::filesystem::path& folder,
               const Json& common);

}  // namespace laptopdiff::experiments
