// `calibrate`: fixed U-Net inputs for scoring, from real pictures and captions.
#include <torch/types.h>

#include "diffusion/fit.h"
#include "distill/batch.h"
#include "experiments/command.h"
#include "experiments/verbs.h"
#include "runtime/error.h"
#include "runtime/progress.h"

namespace laptopdiff::experiments {
namespace {

struct CalibrateOptions {
  std::string pipeline, data, output;
  std::int64_t samples = 256, seed = 0, first_timestep = 0, last_timestep = 0;
  PipelineOptions files;
  template <typename V>
  void fields(V& v) {
    v("pipeline", pipeline, "diffusers pipeline folder or single-file checkpoint");
    v("data", data, "data folder: metadata.jsonl with images.safetensors or PNG files");
    v("samples", samples, "rows of the calibration set");
    v("seed", seed, "of the pictures, timesteps and noise");
    v("first_timestep", first_timestep, "timesteps are uniform from here");
    v("last_timestep", last_timestep, "up to, not including; 0: the whole schedule");
    v("output", output, "safetensors to write");
    files.fields(v);
  }
};

// Paths need not be UTF-8, on which plain dump() throws.
std::string one_line(const Json& json) { return json.dump(-1, ' ', false, Json::error_handler_t::replace); }

}  // namespace

void run_calibrate(const Invocation& invocation) {
  const auto [options, common, settings] = parse_command<CalibrateOptions>(invocation, {"pipeline"});
  require_option(options.pipeline, "PIPELINE", invocation);
  require_option(options.data, "--data", invocation);
  require_option(options.output, "--output", invocation);
  if (options.samples < 1 || options.seed < 0)
    throw runtime::usage_error("calibrate: --samples must be at least 1, --seed at least 0");
  check_result(options.output, common, settings);
  const c10::InferenceMode inference;
  // Before gigabytes of text encoder are read.
  const auto outline = diffusion::Pipeline::load(options.pipeline, diffusion::Parts::config_only,
                                                 {options.files.config_folder, options.files.weights.variant});
  const unet::Config unet = unet::load_architecture(outline.unet_folder).base;
  diffusion::check_batches(unet, "calibrate");
  diffusion::Pipeline pipeline = load_pipeline(options.pipeline, options.files, common);
  const diffusion::NoiseSchedule schedule = diffusion::noise_schedule(pipeline.scheduler_config);
  const std::int64_t last = options.last_timestep > 0 ? options.last_timestep : schedule.train_timesteps;
  if (options.first_timestep < 0 || options.first_timestep >= last || last > schedule.train_timesteps) {
    throw runtime::usage_error("calibrate: timesteps [", options.first_timestep, ", ", last, ") are not inside 0 to ",
                               schedule.train_timesteps);
  }
  const diffusion::Dataset data = diffusion::Dataset::open(options.data);
  const auto seed = static_cast<std::uint64_t>(options.seed);
  const std::vector<std::int64_t> indices = distill::pick_images(data, options.samples, seed, true);
  if (common.dry_run)
    return runtime::say(runtime::cat("would encode ", indices.size(), " of ", data.count(), " pictures"));
  const distill::LatentCache cache = distill::encode(pipeline, data, indices);
  distill::BatchMaker maker(cache, schedule, seed, options.first_timestep, last, at::Device(at::kCPU));
  const distill::Batch batch = maker.make(0, options.samples);
  runtime::TensorMap tensors = unet::inputs_map(batch.inputs);
  tensors["noise"] = batch.noise;
  // Networks that predict something else than the noise: what criteria of the training loss compare with.
  if (schedule.prediction != diffusion::Prediction::epsilon) tensors["target"] = batch.target;
  runtime::write_tensors(options.output, tensors,
                         {{"made_by", one_line(provenance(invocation))},
                          {"settings", one_line(settings)},
                          {"unet_layout_sha256", layout_sha256(unet)}});
}

}  // namespace laptopdiff::experiments
