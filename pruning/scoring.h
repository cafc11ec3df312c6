// From a criterion's measurement to scores: the work shared among the processes, then what its values say.
#pragma once

#include <string>
#include <vector>

#include "pruning/measurement.h"
#include "pruning/removables.h"
#include "pruning/scores.h"
#include "pruning/work_folder.h"

namespace laptopdiff::pruning {

// Measures the first `samples` samples, which are whole blocks or all there are. Pieces that the folder has are not
// done again; the others are shared among the processes, which each take a run of neighbours. Returns everything, in
// sample order, to the first process and nothing to the others. Called by all processes with the same arguments. Stops
// at a signal between two pieces with Error(stopped); the same call goes on from the folder.
Measured measure_samples(Measurement& measurement, WorkFolder& folder, std::int64_t samples);

// `measured` where each of its samples counts `weights` times: the values of resamples and of bins.
struct Means {
  std::vector<Estimate> rows;
  Gram gram;
};
// [N] double; `why_null` is said of rows whose mean is not finite. The standard error is that of N independent samples
// of weight 1 and 0 where there is one; with other weights it is that of samples repeated so often.
Means means_of(const Measured& measured, const at::Tensor& weights, const std::string& why_null);

// Everything of a Scores that follows from base and measurement: units, shells, their scores, Gram matrix.
Scores summarise(const unet::Program& base, const Removables& removables, const Measured& measured,
                 const std::string& why_null);

// One warning a row without a value.
void warn_of_missing(const Scores& scores);

// What bins divide: timesteps [N] inside [0, schedule). Throws Error(bad_input).
void check_timesteps(const at::Tensor& timesteps, int schedule);

// `count` intervals of equal width over timesteps [0, schedule): each has the scores of the samples in it. `timesteps`
// [N], in the order of `measured`. Throws Error(bad_input) for a timestep outside the schedule.
std::vector<ScoreBin> make_bins(const Removables& removables, const Measured& measured, const at::Tensor& timesteps,
                                int count, int schedule, const std::string& why_null);

}  // namespace laptopdiff::pruning
