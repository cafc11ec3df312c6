// A calibration set from `calibrate`, read for one U-Net.
#pragma once

#include <string>

#include "runtime/tensors.h"
#include "unet/executor.h"

namespace laptopdiff::experiments {

struct CalibrationFile {
  runtime::TensorMap tensors;  // all that the file holds
  unet::Inputs inputs;         // the first samples, as many as were asked for
};

// `samples` is 0 for all. `model` is where `config` is from, for messages. Throws Error(bad_input): inputs that do not
// fit the U-Net, a set that says it was made for another architecture; Error(non_finite); Error(usage): fewer samples
// than were asked for.
CalibrationFile read_calibration(const std::string& path, const unet::Config& config, const std::string& model,
                                 std::int64_t samples);

}  // namespace laptopdiff::experiments
