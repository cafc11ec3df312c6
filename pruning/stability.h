// When to stop scoring: when more samples would not change the mask.
//
// The samples measured so far are resampled with replacement, and each resample's scores are solved at the asked
// ratios. The share of resamples with the same mask as all samples have says how settled it is. Samples are doubled
// until that share is reached at every ratio.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "pruning/scoring.h"

namespace laptopdiff::pruning {

struct StabilityOptions {
  std::vector<double> keep;         // shares of the parameters that are kept, at most
  std::string solver = "knapsack";  // of stable_solvers()
  std::uint64_t seed = 0;           // of the resamples
  int resamples = 200;
  double share = 0.95;             // of resamples that must give the same mask
  std::int64_t first_samples = 8;  // at the first check, rounded up to whole blocks
};

// knapsack, greedy, and gram without its tree: the local search alone, which has the same answers nearly always and
// takes milliseconds.
std::vector<std::string> stable_solvers();

// How settled the masks were at one check.
struct StabilityCheck {
  std::int64_t samples = 0;
  std::vector<double> unchanged;  // one a ratio: the share of resamples with the same mask
};

struct StableRun {
  Measured measured;  // on the first process
  std::int64_t samples = 0;
  bool stable = false;                 // false: all samples were used
  std::vector<StabilityCheck> checks;  // on the first process
};

// The share for `measured`, whose summary is `scores`. A pure function of its arguments.
StabilityCheck check_stability(const Scores& scores, const unet::Program& base, const Measured& measured,
                               const StabilityOptions& options);

// Sample counts at which is checked: doubled from the first, whole blocks, the last one all of `most`.
std::vector<std::int64_t> check_points(std::int64_t first, std::int64_t block, std::int64_t most);

// For before the work: throws Error(usage) on an unknown solver, one that needs a Gram matrix that there is not, and
// ratios that cannot be met.
void check_stable(const Measurement& measurement, const unet::Program& base, const Removables& removables,
                  const StabilityOptions& options);

// Measures up to `most` samples. Called by all processes, which all get the same `samples` and `stable`. The options
// are such as check_stable takes; throws Error(usage) where rows without a value leave a ratio that cannot be met.
StableRun measure_until_stable(Measurement& measurement, WorkFolder& folder, std::int64_t most,
                               const unet::Program& base, const std::function<Scores(const Measured&)>& summary,
                               const StabilityOptions& options);

// {"solver", "share", "resamples", "seed", "stable", "samples", "checks": [{"samples", "unchanged": {"0.5": 0.97}}]}
runtime::Json stability_json(const StableRun& run, const StabilityOptions& options);

}  // namespace laptopdiff::pruning
