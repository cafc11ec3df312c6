// Small random U-Nets and inputs for tests. Include before doctest: it brings in torch.
#pragma once

#include <torch/types.h>
#include <torch/utils.h>

#include "unet/executor.h"
#include "unet/spec.h"

namespace laptopdiff::test {

// Three stages of the SD topology; the deepest has no transformers.
inline unet::Config small_config() {
  const runtime::Json json = {
      {"_class_name", "UNet2DConditionModel"},
      {"sample_size", 8},
      {"block_out_channels", {16, 32, 32}},
      {"down_block_types", {"CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"}},
      {"up_block_types", {"UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"}},
      {"cross_attention_dim", 12},
      {"attention_head_dim", 4},
      {"norm_num_groups", 8},
  };
  return unet::parse_config(json, "small_config");
}

// What the small model lacks: linear projections, scale and shift, other activations, several blocks a shell.
inline unet::Config other_config() {
  runtime::Json json = {
      {"_class_name", "UNet2DConditionModel"},
      {"sample_size", 8},
      {"block_out_channels", {16, 32}},
      {"down_block_types", {"CrossAttnDownBlock2D", "DownBlock2D"}},
      {"up_block_types", {"UpBlock2D", "CrossAttnUpBlock2D"}},
      {"cross_attention_dim", 12},
      {"attention_head_dim", 4},
      {"norm_num_groups", 8},
      {"use_linear_projection", true},
      {"transformer_layers_per_block", 2},
      {"resnet_time_scale_shift", "scale_shift"},
      {"act_fn", "gelu"},
      {"downsample_padding", 0},
  };
  return unet::parse_config(json, "other_config");
}

inline unet::Config plain_attention_config() {
  const runtime::Json json = {
      {"_class_name", "UNet2DModel"},
      {"sample_size", 8},
      {"block_out_channels", {16, 32}},
      {"down_block_types", {"DownBlock2D", "AttnDownBlock2D"}},
      {"up_block_types", {"AttnUpBlock2D", "UpBlock2D"}},
      {"attention_head_dim", 8},
      {"norm_num_groups", 8},
  };
  return unet::parse_config(json, "plain_attention_config");
}

// Between them, all that a step can be.
inline std::vector<unet::Config> small_configs() { return {small_config(), other_config(), plain_attention_config()}; }

inline runtime::TensorMap random_weights(const unet::Program& program, std::uint64_t seed = 0) {
  torch::manual_seed(seed);
  runtime::TensorMap weights;
  for (const unet::Step& step : program.steps) {
    for (const unet::Parameter& p : unet::step_parameters(program.config, program.stages, step)) {
      std::int64_t fan_in = 1;
      for (std::size_t i = 1; i < p.shape.size(); ++i) fan_in *= p.shape[i];
      at::Tensor value = torch::randn(p.shape) / std::sqrt(static_cast<double>(fan_in));
      if (p.shape.size() == 1)
        value = (p.name.find("norm") != std::string::npos && p.name.ends_with("weight") ? 1 : 0) + 0.1 * value;
      weights[p.name] = value;
    }
  }
  return weights;
}

inline unet::Inputs random_inputs(const unet::Config& config, std::int64_t batch, std::uint64_t seed = 1) {
  torch::manual_seed(seed);
  unet::Inputs inputs;
  inputs.sample = torch::randn({batch, config.in_channels, 8, 8});
  inputs.timestep = torch::randint(1000, {batch}, torch::kLong);
  inputs.encoder_hidden_states = torch::randn({batch, 5, 12});
  return inputs;
}

// The base, then the base without each unit.
inline std::vector<unet::Program> single_removals(const unet::Program& base) {
  std::vector<unet::Program> variants{base};
  for (const unet::Unit& unit : unet::find_units(base)) {
    unet::Spec spec;
    spec.base = base.config;
    spec.removed = {{unit.layer, unet::How::bypass}};
    variants.push_back(unet::prune(base, spec));
  }
  return variants;
}

// From conv_in to conv_out, step by step.
inline at::Tensor naive_forward(const unet::Executor& executor, const unet::Program& variant,
                                const unet::Inputs& inputs) {
  unet::State state = executor.start(inputs);
  for (const unet::Step& step : variant.steps) executor.run(step, state);
  return state.hidden;
}

}  // namespace laptopdiff::test
