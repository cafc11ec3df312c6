// What `score` has to give a criterion, and which of its settings change nothing then.
#pragma once

#include <string>

#include "pruning/criteria.h"
#include "runtime/json.h"

namespace laptopdiff::experiments {

// A calibration set.
bool is_calibrated(const pruning::Criterion& criterion);
// And what the network should have predicted for it.
bool has_targets(const pruning::Criterion& criterion);
// Pictures, or their latents.
bool is_sampled(const pruning::Criterion& criterion);
// The weights themselves, as they are stored, not laid out for inference.
bool reads_weights(const pruning::Criterion& criterion);

// The criterion that settings of `score` name; null where it is unknown, of which the verb says more.
const pruning::Criterion* criterion_of(const runtime::Json& score);

// False where the criterion has no use for a setting of `score`: something else was meant.
bool has_effect(const pruning::Criterion& criterion, const std::string& setting);

}  // namespace laptopdiff::experiments
