// Pictures of variants of one U-Net, for criteria that sample: the same prompts and noise for each.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "diffusion/scheduler.h"
#include "experiments/drawing.h"
#include "experiments/verbs.h"
#include "metrics/clip_model.h"
#include "pruning/criteria.h"

namespace laptopdiff::experiments {

// How `score` samples; its flags.
struct VariantSampling {
  std::string prompts, models, scheduler;
  std::int64_t count = 0, steps = 25, picture_batch = 16;
  double guidance = 7.5;
  template <typename V>
  void fields(V& v) {
    v("prompts", prompts, "clip_score, latent_shift: prompts, one a line (or .jsonl with `text`)");
    v("models", models, "clip_score: folder that holds clip/");
    v("scheduler", scheduler, "clip_score, latent_shift: ddim, ddpm, pndm, dpm++2m or euler; default: the pipeline's");
    v("count", count,
      "clip_score, latent_shift: the first so many prompts; 0: all. Of an unconditional pipeline: pictures");
    v("steps", steps, "clip_score, latent_shift: sampling steps");
    v("guidance", guidance, "clip_score, latent_shift: classifier-free guidance; 1: off");
    v("picture_batch", picture_batch, "clip_score, latent_shift: pictures at once");
  }
};

class VariantSampler {
 public:
  // `executor` is of the pipeline's U-Net and must outlive it. Throws Error(usage): no pipeline, prompts or models
  // where they are needed, fewer than two pictures for latent_shift, U-Nets that prompts do not condition;
  // Error(bad_input).
  VariantSampler(const std::string& pipeline, const VariantSampling& options, pruning::Needs needs, std::uint64_t seed,
                 const unet::Executor& executor, const WeightOptions& weights, const CommonOptions& common);

  // What criteria call; valid as long as this lives.
  pruning::Sampling sampling();

  // Everything that the pictures depend on besides the U-Net.
  Json key() const;

 private:
  using Batch = std::function<void(std::int64_t first, const at::Tensor& samples)>;
  void draw(const unet::Program& variant, const Batch& done);

  VariantSampling options_;
  const unet::Executor& executor_;
  at::ScalarType dtype_;
  diffusion::Pipeline pipeline_;
  std::unique_ptr<diffusion::Scheduler> scheduler_;
  Requests requests_;
  diffusion::SampleOptions run_;
  at::Tensor timestep_cond_;  // [1, Q] of guidance-distilled networks
  std::unique_ptr<Conditioner> conditioner_;
  std::optional<metrics::ClipModel> clip_;  // pictures only
  at::Tensor text_embeds_;                  // [P, D]
  std::string pipeline_sha256_, clip_sha256_;
};

}  // namespace laptopdiff::experiments
