// `sample`: pictures from a pipeline, with its own U-Net or a student's.
#include <torch/types.h>

#include <cstdio>

#include "diffusion/image.h"
#include "diffusion/pipeline.h"
#include "diffusion/sampler.h"
#include "diffusion/scheduler.h"
#include "experiments/command.h"
#include "experiments/verbs.h"
#include "metrics/prompt_file.h"
#include "runtime/error.h"
#include "runtime/progress.h"
#include "runtime/stop.h"

namespace laptopdiff::experiments {
namespace {

constexpr std::int64_t kMaxLatentSide = 1 << 16;

struct SampleVerbOptions {
  std::string pipeline, unet, spec, prompts, scheduler, latents, output;
  std::int64_t count = 0, steps = 25, seed = 0, batch = 16, latent = 0;
  double guidance = 7.5, eta = 0;
  template <typename V>
  void fields(V& v) {
    v("pipeline", pipeline, "diffusers pipeline folder");
    v("unet", unet, "another U-Net: a model folder or a student of `distill`");
    v("spec", spec, "spec.json: run the U-Net pruned, without retraining");
    v("prompts", prompts, "prompts, one a line (or .jsonl with `text`): one picture each");
    v("count", count, "pictures; with prompts: only the first so many");
    v("scheduler", scheduler, "ddim, ddpm, pndm, dpm++2m or euler; default: the pipeline's");
    v("steps", steps, "sampling steps");
    v("guidance", guidance, "classifier-free guidance; 1: off");
    v("eta", eta, "DDIM's noise share");
    v("latents", latents, "safetensors with unit noise `latents` [N, C, h, w] instead of the seed's");
    v("latent", latent, "latent size; 0: the U-Net's sample_size");
    v("seed", seed, "picture i starts from noise of (seed, i), whatever the batch");
    v("batch", batch, "pictures at once");
    v("output", output, "folder for 000000.png, ...");
  }
};

// The folder's texts as contexts, encoded once for distinct prompts in batches as they are needed.
class Prompts {
 public:
  Prompts(diffusion::Pipeline& pipeline, std::vector<std::string> texts)
      : pipeline_(pipeline), texts_(std::move(texts)) {
    if (!texts_.empty()) unconditional_ = pipeline_.encode_unconditional();
  }
  diffusion::Conditioning operator()(std::int64_t first, std::int64_t count) {
    diffusion::Conditioning conditioning;
    if (texts_.empty()) return conditioning;
    const auto encoded = pipeline_.encode_prompts({texts_.begin() + first, texts_.begin() + first + count});
    conditioning.conditional.encoder_hidden_states = encoded.context;
    conditioning.unconditional.encoder_hidden_states = unconditional_.context;
    return conditioning;
  }

 private:
  diffusion::Pipeline& pipeline_;
  std::vector<std::string> texts_;
  diffusion::EncodedPrompts unconditional_;
};

std::vector<std::string> read_texts(const SampleVerbOptions& options, const diffusion::Pipeline& pipeline) {
  if (pipeline.text.empty()) {
    if (!options.prompts.empty())
      throw runtime::usage_error("--prompts: ", options.pipeline, " is unconditional; give --count");
    if (options.count < 1) throw runtime::usage_error("sample: --count is needed for an unconditional pipeline");
    return {};
  }
  if (options.prompts.empty()) throw runtime::usage_error("sample: --prompts is missing");
  std::vector<std::string> texts = metrics::read_prompts(options.prompts);
  if (options.count > static_cast<std::int64_t>(texts.size())) {
    throw runtime::usage_error("--count ", options.count, ": ", options.prompts, " has ", texts.size(), " prompts");
  }
  if (options.count > 0) texts.resize(static_cast<std::size_t>(options.count));
  return texts;
}

diffusion::SampleOptions sample_options(const SampleVerbOptions& options, const unet::Config& config,
                                        std::int64_t count, at::Device device) {
  diffusion::SampleOptions run;
  run.count = count;
  run.batch = options.batch;
  run.steps = options.steps;
  run.guidance = options.guidance;
  run.eta = options.eta;
  run.seed = static_cast<std::uint64_t>(options.seed);
  const std::int64_t height = options.latent > 0 ? options.latent : config.sample_height,
                     width = options.latent > 0 ? options.latent : config.sample_width;
  if (height < 1) throw runtime::usage_error("sample: the U-Net's config has no sample_size; give --latent");
  run.shape = {config.out_channels, height, width};
  run.device = device;
  if (!options.latents.empty()) {
    const auto file = runtime::SafetensorsFile::open(options.latents);
    run.latents = runtime::view_tensor(file, file->at("latents"));
  }
  return run;
}

// --overwrite replaces the whole folder, so it must be one of ours: a slip of -o must not cost anyone's files.
void check_folder(const std::filesystem::path& folder, runtime::Existing existing) {
  runtime::check_output(folder, existing, runtime::OutputKind::folder);
  if (!std::filesystem::is_directory(folder) || std::filesystem::is_empty(folder)) return;
  if (std::filesystem::exists(folder / "samples.json")) return;
  throw runtime::usage_error(folder.string(), " holds files that `sample` did not make; --overwrite will not replace it");
}

}  // namespace

void run_sample(const Invocation& invocation) {
  const auto [options, common, settings] = parse_command<SampleVerbOptions>(invocation, {"pipeline"});
  require_option(options.pipeline, "PIPELINE", invocation);
  require_option(options.output, "--output", invocation);
  if (options.latent < 0 || options.latent > kMaxLatentSide) {
    throw runtime::usage_error("--latent ", options.latent, ": expected 1 to ", kMaxLatentSide, ", or 0 for the U-Net's");
  }
  if (options.steps < 1 || options.batch < 1 || options.seed < 0 || options.count < 0) {
    throw runtime::usage_error("sample: --steps and --batch must be at least 1, --seed and --count at least 0");
  }
  check_folder(options.output, common.existing());
  const c10::InferenceMode inference;
  const at::Device device = common.torch_device();
  diffusion::Pipeline pipeline = diffusion::Pipeline::load(options.pipeline);
  pipeline.to(device);
  std::optional<diffusion::SchedulerKind> kind;
  if (!options.scheduler.empty()) kind = diffusion::parse_scheduler_kind(options.scheduler);
  const auto scheduler = diffusion::Scheduler::make(pipeline.scheduler_config, kind);
  const std::vector<std::string> texts = read_texts(options, pipeline);
  const std::int64_t count = texts.empty() ? options.count : static_cast<std::int64_t>(texts.size());
  const LoadedModel model = load_for_device(options.unet.empty() ? pipeline.unet_folder.string() : options.unet,
                                            options.spec, common, WeightsHash::skip);
  const unet::Executor executor(model.program, model.weights);
  const diffusion::SampleOptions run = sample_options(options, model.spec.base, count, device);
  if (common.dry_run) return runtime::say(runtime::cat("would draw ", count, " pictures in ", options.steps, " steps"));

  const diffusion::Denoiser denoise = [&](const at::Tensor& sample, double timestep,
                                          const diffusion::Context& context) {
    unet::Inputs inputs;
    inputs.sample = sample.to(common.torch_dtype());
    inputs.timestep = at::full({sample.size(0)}, timestep, sample.options().dtype(at::kDouble));
    inputs.encoder_hidden_states = context.encoder_hidden_states;
    inputs.text_embeds = context.text_embeds;
    inputs.time_ids = context.time_ids;
    inputs.class_labels = context.class_labels;
    return executor.forward(inputs).to(at::kFloat);
  };
  Prompts prompts(pipeline, texts);
  runtime::Progress progress("sample", count, "pictures");
  runtime::write_folder_via(options.output, common.existing(), [&](const std::filesystem::path& folder) {
    diffusion::sample(
        *scheduler, denoise, [&](std::int64_t first, std::int64_t n) { return prompts(first, n); }, run,
        [&](std::int64_t first, const at::Tensor& samples) {
          runtime::throw_if_interrupted("no picture was kept");
          const at::Tensor images = pipeline.to_images(samples).to(at::kCPU);
          for (std::int64_t i = 0; i < images.size(0); ++i) {
            char name[32];
            std::snprintf(name, sizeof name, "%06lld.png", static_cast<long long>(first + i));
            diffusion::write_png(folder / name, images[i]);
          }
          progress.update(first + images.size(0));
        });
    Json about = {{"format", "laptopdiff.samples/1"},
                  {"settings", settings},
                  {"made_by", provenance(invocation)},
                  {"count", count}};
    runtime::write_json(folder / "samples.json", about);
  });
  progress.finish();
}

}  // namespace laptopdiff::experiments
