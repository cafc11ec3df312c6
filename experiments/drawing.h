// What drawing pictures takes beside the network, for the verbs that draw: prompts, contexts, sizes.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "diffusion/pipeline.h"
#include "diffusion/sampler.h"
#include "unet/executor.h"

namespace laptopdiff::experiments {

// What is asked for, a row a picture.
struct Requests {
  std::int64_t count = 0;
  std::vector<std::string> texts;      // none for pipelines without a text encoder
  std::vector<std::string> negatives;  // none: the pipeline's own; one: for all
  at::Tensor labels;                   // [count] int64; undefined without --labels
};

// The first `count` rows of a file, or all where `count` is 0. Throws Error(usage) where there are not so many.
std::vector<std::string> first_rows(std::vector<std::string> rows, std::int64_t count, const std::string& file);

// What the pictures are conditioned on; texts are encoded batch by batch, as they are needed.
class Conditioner {
 public:
  // `time_ids` [1, 6] of SDXL. The pipeline must outlive it.
  Conditioner(diffusion::Pipeline& pipeline, Requests requests, std::int64_t clip_skip, const at::Tensor& time_ids);
  diffusion::Conditioning operator()(std::int64_t first, std::int64_t count);

 private:
  diffusion::Context context(const diffusion::EncodedPrompts& encoded) const;

  diffusion::Pipeline& pipeline_;
  Requests requests_;
  std::int64_t clip_skip_;
  at::Tensor time_ids_;
  diffusion::Context shared_negative_;
};

// Height and width of a sample that the U-Net's config means. `verb` and `way_out` are for messages: Error(usage) where
// the config has no size.
std::pair<std::int64_t, std::int64_t> own_latent_size(const unet::Config& config, const std::string& verb,
                                                      const std::string& way_out);

// A guidance-distilled network is told the guidance in place of a second half: its embedding [1, Q] of `run`'s
// guidance, which becomes 1. Undefined for other networks.
at::Tensor take_guidance(const unet::Config& config, diffusion::SampleOptions& run);

// A sampler's call as inputs of a U-Net. `timestep_cond` [1, Q] may be undefined.
unet::Inputs network_inputs(const at::Tensor& sample, double timestep, const diffusion::Context& context,
                            at::ScalarType dtype, const at::Tensor& timestep_cond);

}  // namespace laptopdiff::experiments
