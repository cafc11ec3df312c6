#include "experiments/drawing.h"

#include <torch/types.h>

#include <cmath>
#include <cstdio>
#include <utility>

#include "runtime/error.h"
#include "runtime/progress.h"

namespace laptopdiff::experiments {
namespace {

constexpr std::int64_t kStableDiffusionLatent = 64;

// Configs of Stable Diffusion that are older than diffusers 0.9 give a sample_size that nobody meant; diffusers draws
// at 64 then.
bool has_outdated_size(const unet::Config& config) {
  using runtime::Json;
  const Json version = config.raw.contains("_diffusers_version") ? config.raw["_diffusers_version"] : Json();
  if (!version.is_string() || config.context_width() == 0 || config.text_time) return false;
  int major = 0, minor = 0;
  const bool read = std::sscanf(version.get<std::string>().c_str(), "%d.%d", &major, &minor) == 2;
  return read && major == 0 && minor < 9 && config.raw.contains("sample_size") &&
         config.raw["sample_size"].is_number_integer() && config.sample_height < kStableDiffusionLatent;
}

// The sinusoid [1, width] by which a guidance-distilled network is told the guidance.
// Meng et al., "On distillation of guided diffusion models", 2023; numbers as in diffusers.
at::Tensor guidance_embedding(double guidance, std::int64_t width) {
  const std::int64_t half = width / 2;
  const at::Tensor frequencies =
      (at::arange(half, at::kFloat) * (-std::log(10000.0) / static_cast<double>(half - 1))).exp();
  const at::Tensor angles = static_cast<float>((guidance - 1) * 1000.0) * frequencies;
  return at::constant_pad_nd(at::cat({angles.sin(), angles.cos()}), {0, width % 2}).unsqueeze(0);
}

}  // namespace

std::vector<std::string> first_rows(std::vector<std::string> rows, std::int64_t count, const std::string& file) {
  if (count > static_cast<std::int64_t>(rows.size())) {
    throw runtime::usage_error("--count ", count, ": ", file, " has ", rows.size(), " rows");
  }
  if (count > 0) rows.resize(static_cast<std::size_t>(count));
  return rows;
}

Conditioner::Conditioner(diffusion::Pipeline& pipeline, Requests requests, std::int64_t clip_skip,
                         const at::Tensor& time_ids)
    : pipeline_(pipeline), requests_(std::move(requests)), clip_skip_(clip_skip), time_ids_(time_ids) {
  const auto& negatives = requests_.negatives;
  if (requests_.texts.empty()) return;
  if (negatives.empty()) shared_negative_ = context(pipeline_.encode_unconditional());
  if (negatives.size() == 1) shared_negative_ = context(pipeline_.encode_prompts(negatives));
}

diffusion::Conditioning Conditioner::operator()(std::int64_t first, std::int64_t count) {
  diffusion::Conditioning conditioning;
  if (requests_.labels.defined()) conditioning.conditional.class_labels = requests_.labels.narrow(0, first, count);
  if (requests_.texts.empty()) return conditioning;
  const auto rows = [&](const std::vector<std::string>& texts) {
    return std::vector<std::string>(texts.begin() + first, texts.begin() + first + count);
  };
  conditioning.conditional = context(pipeline_.encode_prompts(rows(requests_.texts), clip_skip_));
  // As in diffusers, the negative prompt is encoded without the skip.
  conditioning.unconditional =
      requests_.negatives.size() > 1 ? context(pipeline_.encode_prompts(rows(requests_.negatives))) : shared_negative_;
  return conditioning;
}

diffusion::Context Conditioner::context(const diffusion::EncodedPrompts& encoded) const {
  diffusion::Context out;
  out.encoder_hidden_states = encoded.context;
  out.text_embeds = encoded.pooled;
  if (pipeline_.is_xl()) out.time_ids = time_ids_.expand({encoded.context.size(0), -1});
  return out;
}

std::pair<std::int64_t, std::int64_t> own_latent_size(const unet::Config& config, const std::string& verb,
                                                      const std::string& way_out) {
  if (has_outdated_size(config)) {
    runtime::warn(runtime::cat(verb, ": the U-Net's config is of diffusers 0.8 or older and says sample_size ",
                               config.sample_height, "; ", kStableDiffusionLatent,
                               " is used, as in diffusers; --latent sets another"));
    return {kStableDiffusionLatent, kStableDiffusionLatent};
  }
  if (config.sample_height < 1) throw runtime::usage_error(verb, ": the U-Net's config has no sample_size; ", way_out);
  return {config.sample_height, config.sample_width};
}

at::Tensor take_guidance(const unet::Config& config, diffusion::SampleOptions& run) {
  if (config.time_cond_proj_dim == 0) return {};
  return guidance_embedding(std::exchange(run.guidance, 1), config.time_cond_proj_dim);
}

unet::Inputs network_inputs(const at::Tensor& sample, double timestep, const diffusion::Context& context,
                            at::ScalarType dtype, const at::Tensor& timestep_cond) {
  unet::Inputs inputs;
  inputs.sample = sample.to(dtype);
  inputs.timestep = at::full({sample.size(0)}, timestep, sample.options().dtype(at::kDouble));
  inputs.encoder_hidden_states = context.encoder_hidden_states;
  inputs.text_embeds = context.text_embeds;
  if (context.time_ids.defined()) inputs.time_ids = context.time_ids.to(sample.device());
  if (context.class_labels.defined()) inputs.class_labels = context.class_labels.to(sample.device());
  if (timestep_cond.defined()) inputs.timestep_cond = timestep_cond.to(sample.device()).expand({sample.size(0), -1});
  return inputs;
}

}  // namespace laptopdiff::experiments
