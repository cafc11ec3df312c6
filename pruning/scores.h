// scores.json: what each unit of a base is worth, as a value. Format `laptopdiff.scores/1`. Knows no torch.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "unet/spec.h"

namespace laptopdiff::pruning {

// The mean over calibration samples; no value where the unit's output was not finite.
struct Estimate {
  std::optional<double> value;
  double standard_error = 0;
  std::string why_null;  // where there is no value
};

// A Transformer2DModel with several blocks: what removing all of them, shell included, costs and frees.
struct ShellScore {
  std::string path;
  std::vector<int> units;  // indices into Scores::units
  std::int64_t params = 0, macs = 0;
  Estimate score;
};

// Rows as those of Scores::gram.
using Gram = std::vector<std::vector<std::optional<double>>>;

// The same scores over the calibration samples of one interval of timesteps.
struct ScoreBin {
  int first = 0, last = 0;  // timesteps [first, last)
  std::int64_t samples = 0;
  std::vector<Estimate> unit_scores, shell_scores;  // parallel to units and shells; no values where there is no sample
  Gram gram;                                        // empty where the scores have none, or there is no sample
};

struct Scores {
  std::string criterion;
  unet::Config base;
  std::string weights_sha256;
  unet::Shell shell = unet::Shell::drop;
  std::vector<unet::Unit> units;
  std::vector<Estimate> unit_scores;  // parallel to units
  std::vector<ShellScore> shells;     // with shell `drop` only
  // Rows: units, then shells. Empty where the criterion has none; entries of units without a value are empty.
  Gram gram;
  std::vector<ScoreBin> bins;  // ascending, without gaps; empty where none were asked for
  std::int64_t samples = 0;
  std::string calibration_sha256;
  runtime::Json stability;  // what `--until stable` found when it stopped; null without it
  runtime::Json made_by;
};

runtime::Json scores_json(const Scores& scores);

// Reads and checks against the units of its own base. Throws Error(bad_input).
Scores read_scores(const std::filesystem::path& path);

}  // namespace laptopdiff::pruning
