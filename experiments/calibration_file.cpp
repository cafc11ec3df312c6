#include "experiments/calibration_file.h"

#include "experiments/verbs.h"
#include "runtime/error.h"

namespace laptopdiff::experiments {
namespace {

// Texts and latents of another architecture's pipeline may have the same shapes.
void check_made_for(const std::string& path, const unet::Config& config, const std::string& model) {
  const auto file = runtime::SafetensorsFile::open(path);
  const auto made_for = file->metadata().find("unet_layout_sha256");
  if (made_for == file->metadata().end() || made_for->second == layout_sha256(config)) return;
  throw runtime::input_error(path, ": was made for another U-Net architecture than ", model,
                             " (their parameters differ); make one with `calibrate` of this model's pipeline");
}

}  // namespace

CalibrationFile read_calibration(const std::string& path, const unet::Config& config, const std::string& model,
                                 std::int64_t samples) {
  CalibrationFile calibration;
  calibration.tensors = runtime::read_tensors(path);
  calibration.inputs = unet::inputs_from(calibration.tensors, config, path);
  check_made_for(path, config, model);
  const std::int64_t available = calibration.inputs.batch();
  if (samples > available) throw runtime::usage_error("--samples ", samples, ": the calibration set has ", available);
  if (samples > 0) calibration.inputs = unet::slice(calibration.inputs, 0, samples);
  return calibration;
}

}  // namespace laptopdiff::experiments
