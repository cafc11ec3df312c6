// `sample`: pictures from a pipeline, with its own U-Net or a student's.
#include <torch/types.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdio>

#include "diffusion/fit.h"
#include "diffusion/image.h"
#include "diffusion/pipeline.h"
#include "diffusion/sampler.h"
#include "diffusion/scheduler.h"
#include "experiments/command.h"
#include "experiments/drawing.h"
#include "experiments/inputs.h"
#include "experiments/networks.h"
#include "experiments/verbs.h"
#include "metrics/prompt_file.h"
#include "runtime/error.h"
#include "runtime/progress.h"
#include "runtime/stop.h"

namespace laptopdiff::experiments {
namespace {

constexpr std::int64_t kMaxLatentSide = 1 << 16;

struct SampleVerbOptions {
  std::string pipeline, unet, spec, prompts, negative, negative_prompts, labels, scheduler, latents, output;
  std::int64_t count = 0, steps = 25, seed = 0, batch = 16, latent = 0, clip_skip = 0;
  std::vector<std::int64_t> original_size, crop, target_size;
  double guidance = 7.5, guidance_rescale = 0, eta = 0;
  bool vae_tiling = false;
  PipelineOptions files;
  template <typename V>
  void fields(V& v) {
    v("pipeline", pipeline, "diffusers pipeline folder or single-file checkpoint");
    v("unet", unet, "another U-Net: a model folder, a student of `distill`, or a spec set: one network an interval");
    v("spec", spec, "spec.json or a spec set: run the U-Net pruned, without retraining");
    v("prompts", prompts, "prompts, one a line (or .jsonl with `text`): one picture each");
    v("negative", negative, "what guidance leads away from, for all pictures; default: the pipeline's empty prompt");
    v("negative_prompts", negative_prompts, "the same, one a line for each prompt");
    v("labels", labels, "class numbers, one a line (or .jsonl with `label`), for a class-conditional U-Net");
    v("count", count, "pictures; with prompts or labels: only the first so many");
    v("scheduler", scheduler, "ddim, ddpm, pndm, dpm++2m or euler; default: the pipeline's");
    v("steps", steps, "sampling steps");
    v("guidance", guidance, "classifier-free guidance; 1: off");
    v("guidance_rescale", guidance_rescale, "0 to 1: brings the guided output back to the conditional one's deviation");
    v("clip_skip", clip_skip, "conditions on the text encoders' state this many layers earlier");
    v("original_size", original_size, "SDXL: height,width of the picture before its crop; default: the output's");
    v("crop", crop, "SDXL: top,left of the crop (default 0,0)");
    v("target_size", target_size, "SDXL: height,width that is aimed at; default: the output's");
    v("vae_tiling", vae_tiling, "decodes large pictures in tiles: less memory, slightly other pixels");
    v("eta", eta, "DDIM's noise share");
    v("latents", latents, "safetensors with unit noise `latents` [N, C, h, w] instead of the seed's");
    v("latent", latent, "latent size; 0: the U-Net's sample_size");
    v("seed", seed, "picture i starts from noise of (seed, i), whatever the batch");
    v("batch", batch, "pictures at once");
    v("output", output, "folder for 000000.png, ...");
    files.fields(v);
  }
};

void check_options(const SampleVerbOptions& options) {
  if (options.latent < 0 || options.latent > kMaxLatentSide) {
    throw runtime::usage_error("--latent ", options.latent, ": expected 1 to ", kMaxLatentSide,
                               ", or 0 for the U-Net's");
  }
  if (options.steps < 1 || options.batch < 1 || options.seed < 0 || options.count < 0) {
    throw runtime::usage_error("sample: --steps and --batch must be at least 1, --seed and --count at least 0");
  }
}

std::int64_t parse_label(const std::string& text, const std::string& file) {
  std::int64_t label = 0;
  const char* end = text.data() + text.size();
  const auto parsed = std::from_chars(text.data(), end, label);
  if (parsed.ec != std::errc() || parsed.ptr != end) {
    throw runtime::input_error(file, ": label \"", text, "\": expected the number of a class");
  }
  return label;
}

Requests read_unconditional(const SampleVerbOptions& options) {
  for (const auto& [flag, value] : {std::pair{"--prompts", options.prompts},
                                    {"--negative", options.negative},
                                    {"--negative-prompts", options.negative_prompts}}) {
    if (!value.empty()) {
      throw runtime::usage_error(flag, ": ", options.pipeline, " is unconditional; give --count or --labels");
    }
  }
  Requests requests;
  requests.count = options.count;
  if (!options.labels.empty()) {
    std::vector<std::int64_t> labels;
    for (const auto& row : first_rows(metrics::read_labels(options.labels), options.count, options.labels)) {
      labels.push_back(parse_label(row, options.labels));
    }
    requests.labels = at::tensor(labels);
    requests.count = requests.labels.size(0);
  }
  if (requests.count < 1) throw runtime::usage_error("sample: --count is needed for an unconditional pipeline");
  return requests;
}

// `negative_given` tells an empty --negative, which is encoded, from none.
Requests read_requests(const SampleVerbOptions& options, bool negative_given, const diffusion::Pipeline& pipeline) {
  if (pipeline.text.empty()) return read_unconditional(options);
  if (!options.labels.empty()) throw runtime::usage_error("--labels: ", options.pipeline, " takes --prompts");
  if (options.prompts.empty()) throw runtime::usage_error("sample: --prompts is missing");
  Requests requests;
  requests.texts = first_rows(metrics::read_prompts(options.prompts), options.count, options.prompts);
  requests.count = static_cast<std::int64_t>(requests.texts.size());
  if (negative_given && !options.negative_prompts.empty()) {
    throw runtime::usage_error("--negative and --negative-prompts exclude each other");
  }
  if (negative_given) requests.negatives = {options.negative};
  if (!options.negative_prompts.empty()) {
    requests.negatives =
        first_rows(metrics::read_prompts(options.negative_prompts), options.count, options.negative_prompts);
    if (requests.negatives.size() != requests.texts.size()) {
      throw runtime::usage_error("--negative-prompts: ", options.negative_prompts, " has ", requests.negatives.size(),
                                 " rows for ", requests.count, " prompts");
    }
  }
  return requests;
}

// SDXL's size conditioning [1, 6]: original size, corner of the crop, target size, in pixels, the height first.
at::Tensor size_conditioning(const SampleVerbOptions& options, std::int64_t height, std::int64_t width) {
  std::vector<float> ids;
  const auto append = [&](const char* flag, const std::vector<std::int64_t>& given,
                          std::vector<std::int64_t> fallback) {
    if (!given.empty() && (given.size() != 2 || std::min(given[0], given[1]) < 0)) {
      throw runtime::usage_error(flag, ": expected two numbers of pixels, the height first, as in ", flag, " 768,1024");
    }
    for (const std::int64_t pixels : given.empty() ? fallback : given) ids.push_back(static_cast<float>(pixels));
  };
  append("--original-size", options.original_size, {height, width});
  append("--crop", options.crop, {0, 0});
  append("--target-size", options.target_size, {height, width});
  return at::tensor(ids).unsqueeze(0);
}

void check_labels(const unet::Config& config, const at::Tensor& labels) {
  using unet::ClassEmbedding;
  if (config.class_embedding == ClassEmbedding::none) {
    if (labels.defined()) throw runtime::usage_error("--labels: the U-Net has no class embedding");
    return;
  }
  if (config.class_embedding != ClassEmbedding::table && config.class_embedding != ClassEmbedding::timestep) {
    throw runtime::input_error("sample: the U-Net's `class_embed_type` takes vectors for classes, which `sample` does ",
                               "not have; `forward` takes them as `class_labels`");
  }
  if (!labels.defined()) throw runtime::usage_error("sample: --labels is missing: the U-Net is class-conditional");
  if (config.class_embedding != ClassEmbedding::table) return;
  const auto lowest = labels.min().item<std::int64_t>(), highest = labels.max().item<std::int64_t>();
  if (lowest < 0 || highest >= config.num_class_embeds) {
    throw runtime::input_error("--labels: class ", lowest < 0 ? lowest : highest, " is not one of the U-Net's ",
                               config.num_class_embeds);
  }
}

// Height and width: --latent, else those of the given noise, else the U-Net's.
std::pair<std::int64_t, std::int64_t> latent_size(const SampleVerbOptions& options, const unet::Config& config,
                                                  const at::Tensor& latents) {
  if (options.latent > 0) return {options.latent, options.latent};
  if (latents.defined() && latents.dim() == 4) return {latents.size(2), latents.size(3)};
  return own_latent_size(config, "sample", "give --latent");
}

diffusion::SampleOptions sample_options(const SampleVerbOptions& options, const unet::Config& config,
                                        std::int64_t count, at::Device device) {
  diffusion::SampleOptions run;
  run.count = count;
  run.batch = options.batch;
  run.steps = options.steps;
  run.guidance = options.guidance;
  run.guidance_rescale = options.guidance_rescale;
  run.eta = options.eta;
  run.seed = static_cast<std::uint64_t>(options.seed);
  if (!options.latents.empty()) {
    const auto file = runtime::SafetensorsFile::open(options.latents);
    run.latents = runtime::view_tensor(file, file->at("latents"));
  }
  const auto [height, width] = latent_size(options, config, run.latents);
  unet::check_latent_size(config, height, width, "sample");
  run.shape = {config.out_channels, height, width};
  run.device = device;
  return run;
}

diffusion::Denoiser denoiser(const Networks& networks, at::ScalarType dtype, const at::Tensor& timestep_cond) {
  return
      [&networks, dtype, timestep_cond](const at::Tensor& sample, double timestep, const diffusion::Context& context) {
        runtime::throw_if_interrupted("no picture was kept");
        const unet::Inputs inputs = network_inputs(sample, timestep, context, dtype, timestep_cond);
        return networks.forward(timestep, inputs).to(at::kFloat);
      };
}

void write_images(const std::filesystem::path& folder, std::int64_t first, const at::Tensor& images) {
  for (std::int64_t i = 0; i < images.size(0); ++i) {
    char name[32];
    std::snprintf(name, sizeof name, "%06lld.png", static_cast<long long>(first + i));
    diffusion::write_png(folder / name, images[i]);
  }
}

std::optional<diffusion::SchedulerKind> chosen_scheduler(const SampleVerbOptions& options) {
  if (options.scheduler.empty()) return std::nullopt;
  return diffusion::parse_scheduler_kind(options.scheduler);
}

// What --unet and --spec name. A spec set is one of the pipeline's own U-Net, whichever of them names it.
struct Student {
  std::string unet;  // a model; empty: the pipeline's
  unet::SpecFile spec;
};

Student read_student(const SampleVerbOptions& options) {
  if (auto set = unet::find_spec_set(options.unet)) {
    if (!options.spec.empty())
      throw runtime::usage_error("sample: --unet ", options.unet, " is a spec set, and --spec was given too");
    return {"", std::move(*set)};
  }
  return {options.unet, options.spec.empty() ? unet::SpecFile{} : unet::read_spec_file(options.spec)};
}

// Text encoders and VAE are gigabytes: what the configs alone can refuse is refused before they are read.
void check_before_loading(const SampleVerbOptions& options, const Student& student) {
  const auto outline = diffusion::Pipeline::load(options.pipeline, diffusion::Parts::config_only,
                                                 {options.files.config_folder, options.files.weights.variant});
  diffusion::Scheduler::make(outline.scheduler_config, chosen_scheduler(options));
  unet::load_architecture(student.unet.empty() ? outline.unet_folder : std::filesystem::path(student.unet));
}

}  // namespace

void run_sample(const Invocation& invocation) {
  const auto [options, common, settings] = parse_command<SampleVerbOptions>(invocation, {"pipeline"});
  require_option(options.pipeline, "PIPELINE", invocation);
  require_option(options.output, "--output", invocation);
  check_options(options);
  runtime::check_own_folder(options.output, common.existing(), "samples.json", "sample");
  check_apart(options.output, settings);
  const c10::InferenceMode inference;
  const at::Device device = common.torch_device();
  const Student student = read_student(options);
  check_before_loading(options, student);
  diffusion::Pipeline pipeline = load_pipeline(options.pipeline, options.files, common);
  if (options.vae_tiling) pipeline.vae_tiling = diffusion::Tiling::on;
  if (options.clip_skip < 0 || options.clip_skip > pipeline.max_clip_skip()) {
    throw runtime::usage_error("--clip-skip ", options.clip_skip, ": expected 0 to ", pipeline.max_clip_skip());
  }
  const auto scheduler = diffusion::Scheduler::make(pipeline.scheduler_config, chosen_scheduler(options));
  const Requests requests = read_requests(options, settings.contains("negative"), pipeline);
  WeightOptions weights = options.files.weights;
  if (!student.unet.empty()) weights.variant = unet::available_variant(student.unet, weights.variant);
  LoadedModel model = load_for_device(student.unet.empty() ? pipeline.unet_folder.string() : student.unet, student.spec,
                                      common, WeightsHash::skip, weights);
  const unet::Config config = model.spec.base;
  diffusion::check_fit(config, pipeline, "sample");
  check_labels(config, requests.labels);
  const Networks networks(std::move(model), scheduler->schedule().train_timesteps, student.spec.path.string());
  diffusion::SampleOptions run = sample_options(options, config, requests.count, device);
  const std::int64_t scale = pipeline.pixels_per_sample();
  const at::Tensor time_ids = size_conditioning(options, run.shape[1] * scale, run.shape[2] * scale);
  const at::Tensor timestep_cond = take_guidance(config, run);
  if (common.dry_run) {
    return runtime::say(runtime::cat("would draw ", run.count, " pictures in ", options.steps, " steps"));
  }

  Conditioner conditioner(pipeline, requests, options.clip_skip, time_ids);
  runtime::Progress progress("sample", run.count, "pictures");
  runtime::write_folder_via(options.output, common.existing(), [&](const std::filesystem::path& folder) {
    diffusion::sample(
        *scheduler, denoiser(networks, common.torch_dtype(), timestep_cond),
        [&](std::int64_t first, std::int64_t count) { return conditioner(first, count); }, run,
        [&](std::int64_t first, const at::Tensor& samples) {
          runtime::throw_if_interrupted("no picture was kept");
          const at::Tensor images = pipeline.to_images(samples).to(at::kCPU);
          write_images(folder, first, images);
          progress.update(first + images.size(0));
        });
    const Json about = {{"format", "laptopdiff.samples/1"},
                        {"settings", settings},
                        {"made_by", provenance(invocation)},
                        {"count", run.count}};
    runtime::write_json(folder / "samples.json", about);
  });
  progress.finish();
}

}  // namespace laptopdiff::experiments
