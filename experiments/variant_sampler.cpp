#include "experiments/variant_sampler.h"

#include <torch/types.h>

#include <set>

#include "diffusion/fit.h"
#include "metrics/prompt_file.h"
#include "metrics/scores.h"
#include "runtime/error.h"
#include "runtime/hash.h"
#include "runtime/stop.h"
#include "runtime/weight_files.h"

namespace laptopdiff::experiments {
namespace {

void check_sampling(const VariantSampling& options, pruning::Needs needs, const std::string& pipeline) {
  if (options.steps < 1 || options.picture_batch < 1 || options.count < 0)
    throw runtime::usage_error("--steps and --picture-batch must be at least 1, --count not negative");
  if (needs == pruning::Needs::pictures && options.models.empty())
    throw runtime::usage_error(
        "score: --models is missing; clip_score takes its CLIP model from the folder clip/ there");
  if (!std::filesystem::exists(std::filesystem::path(pipeline) / "model_index.json")) {
    throw runtime::usage_error(pipeline,
                               " is no pipeline folder (no model_index.json); this criterion draws pictures, ",
                               "give the pipeline instead of its U-Net");
  }
}

Requests read_requests_of(const VariantSampling& options, pruning::Needs needs, const diffusion::Pipeline& pipeline) {
  Requests requests;
  if (!pipeline.text.empty()) {
    if (options.prompts.empty()) throw runtime::usage_error("score: --prompts is missing");
    requests.texts = first_rows(metrics::read_prompts(options.prompts), options.count, options.prompts);
    requests.count = static_cast<std::int64_t>(requests.texts.size());
  } else if (needs == pruning::Needs::pictures || !options.prompts.empty()) {
    throw runtime::usage_error(pipeline.folder.string(),
                               " is unconditional; it has no use for prompts, nor a CLIP score");
  } else {
    requests.count = options.count;
  }
  if (needs == pruning::Needs::latents && requests.count < 2)
    throw runtime::usage_error("latent_shift compares deviations over pictures and needs at least 2; there are ",
                               requests.count, " (--prompts, or --count of an unconditional pipeline)");
  return requests;
}

void add_weights(const torch::nn::Module& module, runtime::Sha256& hash) {
  runtime::TensorMap weights;
  for (const auto& item : module.named_parameters()) weights[item.key()] = item.value().detach().to(at::kCPU);
  hash.add(runtime::tensors_sha256(weights));
}

// The folder's own small files: configs and vocabularies. Weights are hashed as they were read.
void add_settings(const std::filesystem::path& folder, runtime::Sha256& hash) {
  if (!std::filesystem::is_directory(folder)) return;
  std::set<std::filesystem::path> files;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    const std::string extension = entry.path().extension().string();
    if (extension == ".json" || extension == ".txt") files.insert(entry.path());
  }
  for (const std::filesystem::path& file : files)
    hash.add(runtime::cat(file.filename().string(), " ", runtime::sha256_file(file), "\n"));
}

// Of everything in a pipeline that its pictures depend on, but for the U-Net.
std::string pipeline_sha256(const diffusion::Pipeline& pipeline) {
  runtime::Sha256 hash;
  hash.add(pipeline.scheduler_config.dump());
  for (const char* part : {"vae", "tokenizer", "tokenizer_2", "text_encoder", "text_encoder_2"})
    add_settings(pipeline.folder / part, hash);
  for (const diffusion::TextTower& tower : pipeline.text) add_weights(*tower.model, hash);
  if (pipeline.vae) add_weights(**pipeline.vae, hash);
  return hash.hex();
}

std::string clip_sha256(const std::filesystem::path& folder) {
  runtime::Sha256 hash;
  add_settings(folder, hash);
  hash.add(runtime::tensors_sha256(runtime::read_weight_files(folder, "model")));
  return hash.hex();
}

}  // namespace

VariantSampler::VariantSampler(const std::string& pipeline, const VariantSampling& options, pruning::Needs needs,
                               std::uint64_t seed, const unet::Executor& executor, const WeightOptions& weights,
                               const CommonOptions& common)
    : options_(options), executor_(executor), dtype_(common.torch_dtype()) {
  const c10::InferenceMode inference;
  check_sampling(options, needs, pipeline);
  pipeline_ = load_pipeline(pipeline, {weights, ""}, common);
  std::optional<diffusion::SchedulerKind> kind;
  if (!options.scheduler.empty()) kind = diffusion::parse_scheduler_kind(options.scheduler);
  scheduler_ = diffusion::Scheduler::make(pipeline_.scheduler_config, kind);
  requests_ = read_requests_of(options, needs, pipeline_);
  const unet::Config& config = executor.program().config;
  diffusion::check_fit(config, pipeline_, "score");
  diffusion::check_no_classes(config, "score");
  const auto [height, width] = own_latent_size(config, "score", "a sampling criterion needs it");
  run_.count = requests_.count;
  run_.batch = options.picture_batch;
  run_.steps = options.steps;
  run_.guidance = options.guidance;
  run_.seed = seed;
  run_.shape = {config.out_channels, height, width};
  run_.device = common.torch_device();
  timestep_cond_ = take_guidance(config, run_);
  const auto scale = static_cast<float>(pipeline_.pixels_per_sample());
  const float rows = scale * static_cast<float>(height), columns = scale * static_cast<float>(width);
  const at::Tensor time_ids = at::tensor({rows, columns, 0.0F, 0.0F, rows, columns}).unsqueeze(0);  // no crop
  conditioner_ = std::make_unique<Conditioner>(pipeline_, requests_, 0, time_ids);
  pipeline_sha256_ = pipeline_sha256(pipeline_);
  if (needs != pruning::Needs::pictures) return;
  const std::filesystem::path clip = std::filesystem::path(options.models) / "clip";
  clip_ = metrics::ClipModel::load(clip, run_.device);
  clip_sha256_ = clip_sha256(clip);
  text_embeds_ = clip_->text_embeds(requests_.texts);
}

void VariantSampler::draw(const unet::Program& variant, const Batch& done) {
  const diffusion::Denoiser denoise = [&](const at::Tensor& sample, double timestep,
                                          const diffusion::Context& context) {
    runtime::throw_if_stopped("finished work is kept; run the same command again to go on");
    return executor_.forward(variant, network_inputs(sample, timestep, context, dtype_, timestep_cond_)).to(at::kFloat);
  };
  diffusion::sample(
      *scheduler_, denoise, [&](std::int64_t first, std::int64_t count) { return (*conditioner_)(first, count); }, run_,
      done);
}

pruning::Sampling VariantSampler::sampling() {
  pruning::Sampling sampling;
  sampling.prompts = requests_.count;
  sampling.latents = [this](const unet::Program& variant) {
    const c10::InferenceMode inference;
    std::vector<at::Tensor> parts;
    draw(variant, [&](std::int64_t, const at::Tensor& samples) { parts.push_back(samples.to(at::kCPU)); });
    return at::cat(parts);
  };
  sampling.picture_scores = [this](const unet::Program& variant) {
    const c10::InferenceMode inference;
    std::vector<at::Tensor> embeds;
    draw(variant, [&](std::int64_t, const at::Tensor& samples) {
      embeds.push_back(clip_->image_embeds(pipeline_.to_images(samples).to(at::kCPU)));
    });
    return metrics::clip_scores(at::cat(embeds), text_embeds_);
  };
  return sampling;
}

Json VariantSampler::key() const {
  return {{"pipeline", pipeline_sha256_},
          {"clip", clip_sha256_},
          {"prompts", options_.prompts.empty() ? "" : runtime::sha256_file(options_.prompts)},
          {"scheduler", options_.scheduler},
          {"count", run_.count},
          {"steps", options_.steps},
          {"guidance", options_.guidance},
          {"picture_batch", options_.picture_batch}};
}

}  // namespace laptopdiff::experiments
