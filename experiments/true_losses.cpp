#include "experiments/true_losses.h"

#include <torch/types.h>

#include "experiments/calibration_file.h"
#include "pruning/budgets.h"
#include "runtime/error.h"

namespace laptopdiff::experiments {
namespace {

void check_made_for(const pruning::Scores& scores, const std::string& file, const LoadedModel& model) {
  require_same_base(scores, model.spec.base, file);
  if (scores.weights_sha256 != model.weights_sha256) {
    throw runtime::input_error(file, ": scores of other weights (", scores.weights_sha256.substr(0, 12),
                               "...) than the model's; were they made with another --lora or --variant?");
  }
}

LoadedModel load_scored(const TrueLossOptions& options, const pruning::Scores& scores, const std::string& scores_file,
                        const CommonOptions& common) {
  LoadedModel model = load_for_device(options.model, "", common, WeightsHash::compute, options.weights);
  check_made_for(scores, scores_file, model);
  return model;
}

unet::Inputs read_inputs(const TrueLossOptions& options, const LoadedModel& model, const CommonOptions& common) {
  const CalibrationFile file = read_calibration(options.calibration, model.spec.base, options.model, options.samples);
  return unet::to(file.inputs, common.torch_dtype(), common.torch_device());
}

pruning::MeterOptions meter_options(const TrueLossOptions& options, unet::Shell shell) {
  pruning::MeterOptions meter;
  meter.shell = shell;
  meter.batch = options.batch;
  meter.engine.memory_bytes = options.memory_bytes;
  return meter;
}

}  // namespace

void require_same_base(const pruning::Scores& scores, const unet::Config& model, const std::string& where) {
  const Json theirs = unet::comparable_config(scores.base), ours = unet::comparable_config(model);
  if (theirs == ours) return;
  for (const auto& [key, value] : ours.items()) {
    if (!theirs.contains(key) || theirs[key] != value) {
      throw runtime::input_error(where, ": scores of another base: `", key, "` is ",
                                 theirs.contains(key) ? theirs[key].dump() : "absent", " there, ", value.dump(),
                                 " in the model");
    }
  }
  throw runtime::input_error(where, ": scores of another base model");
}

TrueLossSource::TrueLossSource(const TrueLossOptions& options, const pruning::Scores& scores,
                               const std::string& scores_file, const CommonOptions& common)
    : model_(load_scored(options, scores, scores_file, common)),
      calibration_(options.calibration),
      all_(read_inputs(options, model_, common)),
      inputs_(all_),
      executor_(unet::Executor::for_inference(model_.base, std::move(model_.weights))),
      options_(meter_options(options, scores.shell)) {
  meter_.emplace(model_.base, executor_, inputs_, options_);
}

void TrueLossSource::restrict_to(int first, int last) {
  const at::Tensor rows = (all_.timestep.ge(first) & all_.timestep.lt(last)).nonzero().squeeze(1);
  if (rows.numel() == 0) {
    throw runtime::input_error(calibration_, ": has no sample at timesteps [", first, ", ", last,
                               "), so nothing can be measured there; make a larger set, or fewer intervals");
  }
  runtime::TensorMap some = unet::inputs_map(all_);
  for (auto& [name, tensor] : some) tensor = tensor.index_select(0, rows);
  inputs_ = unet::inputs_from(some, model_.base.config, calibration_);
  meter_.emplace(model_.base, executor_, inputs_, options_);
}

void TrueLossSource::require_made_for(const pruning::Scores& scores, const std::string& file) const {
  check_made_for(scores, file, model_);
}

pruning::TrueLosses TrueLossSource::losses(const pruning::Scores& scores) {
  return [this, &scores](const std::vector<pruning::Mask>& masks, pruning::Samples samples) {
    std::vector<std::vector<unet::Removal>> sets;
    for (const pruning::Mask& mask : masks) sets.push_back(pruning::removals_of(scores, mask));
    std::vector<double> losses;
    for (const pruning::MeasuredLoss& measured :
         meter_->measure(sets, runtime::cat("measure ", masks.size(), " masks"), samples))
      losses.push_back(measured.loss);
    return losses;
  };
}

Json TrueLossSource::spent() const {
  return {{"samples", inputs_.batch()}, {"forwards", meter_->forwards()}, {"naive_forwards", meter_->naive_forwards()}};
}

}  // namespace laptopdiff::experiments
