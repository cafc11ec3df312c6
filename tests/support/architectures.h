// config.json of published U-Nets, as far as it differs from diffusers' defaults.
#pragma once

#include "runtime/json.h"

namespace laptopdiff::test {

inline runtime::Json sd15() {
  return {{"_class_name", "UNet2DConditionModel"}, {"sample_size", 64}, {"cross_attention_dim", 768}};
}

inline runtime::Json sdxl() {
  return {{"_class_name", "UNet2DConditionModel"},
          {"sample_size", 128},
          {"block_out_channels", {320, 640, 1280}},
          {"down_block_types", {"DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"}},
          {"up_block_types", {"CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"}},
          {"transformer_layers_per_block", {1, 2, 10}},
          {"attention_head_dim", {5, 10, 20}},
          {"cross_attention_dim", 2048},
          {"use_linear_projection", true},
          {"addition_embed_type", "text_time"},
          {"addition_time_embed_dim", 256},
          {"projection_class_embeddings_input_dim", 2816}};
}

}  // namespace laptopdiff::test
