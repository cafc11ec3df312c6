// A diffusers U-Net's config.json as a table: which stages, which layers, how wide.
//
// One table serves UNet2DConditionModel (SD 1.x, 2.x, XL and their students) and UNet2DModel (DDPM): they differ in
// data, not in branches. A config that diffusers accepts for these classes either becomes a table or is refused with
// the name of the field that is not supported. Knows no torch.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "runtime/json.h"

namespace laptopdiff::unet {

using runtime::Json;

enum class ModelClass { conditional, unconditional };    // UNet2DConditionModel, UNet2DModel
enum class LayerAttention { none, transformer, plain };  // what follows a stage's ResNets
enum class Resample { none, conv, resnet };              // a stage's down- or up-sampler
enum class Activation { silu, gelu, mish, relu };        // act_fn
enum class TimeScaleShift { shift, scale_shift };        // resnet_time_scale_shift: default, scale_shift
enum class ClassEmbedding { none, table, timestep, identity, projection, simple_projection };

// One down or up stage, or the middle.
struct Stage {
  std::string path;  // "down_blocks.0", "mid_block"
  LayerAttention attention = LayerAttention::none;
  Resample sampler = Resample::none;
  int channels = 0;                   // out channels of every layer
  int layers = 0;                     // ResNets: n in a down stage, n + 1 in an up stage
  std::vector<int> depth;             // transformer blocks of each layer; empty without transformers
  int heads = 0;                      // attention heads; channels / heads is the head size
  int context = 0;                    // width of encoder_hidden_states; 0 without transformers
  bool only_cross_attention = false;  // attn1 reads the text too
  bool upsample_to_skip = false;      // its up-sampler makes the next skip's size, not twice its own
  bool attention_norm = true;         // plain attention: has a group_norm
  int attention_groups = 0;           // its groups
  bool skip_time_act = false;         // its ResNets take the time embedding without the activation
  double output_scale = 1.0;          // its ResNets and plain attentions divide their sum by this
};

struct Config {
  ModelClass model_class = ModelClass::conditional;
  Json raw;  // the JSON as it was read, for specs and exports

  int in_channels = 4, out_channels = 4;
  int sample_height = 0, sample_width = 0;  // of the latent; 0 where the config does not say
  bool center_input_sample = false;
  int conv_in_kernel = 3, conv_out_kernel = 3;

  bool flip_sin_to_cos = true;
  double freq_shift = 0;
  int time_channels = 0;       // width of the sinusoid
  int time_embed_dim = 0;      // width of the time embedding
  int block_time_dim = 0;      // what the ResNets see (twice that with class_embeddings_concat)
  int time_cond_proj_dim = 0;  // 0: none
  bool time_embedding_post_act = false;
  Activation time_post_act = Activation::silu;
  bool time_embed_act = false;  // an activation after all embeddings are added
  Activation time_act = Activation::silu;

  ClassEmbedding class_embedding = ClassEmbedding::none;
  int num_class_embeds = 0, class_projection_dim = 0;
  bool class_embeddings_concat = false;
  bool text_time = false;  // addition_embed_type text_time (SDXL)
  int addition_time_embed_dim = 0, add_projection_dim = 0;

  Activation act = Activation::silu;
  int norm_groups = 32;
  double norm_eps = 1e-5;
  TimeScaleShift time_scale_shift = TimeScaleShift::shift;
  bool linear_projection = false;
  int downsample_padding = 1;

  std::vector<Stage> down, up;
  std::vector<Stage> mid;  // empty: no middle block; else one stage whose layers are its ResNets

  std::string where;  // the file it was read from, for messages

  const char* class_name() const;
  int context_width() const;  // of encoder_hidden_states; 0 where no stage attends to text
};

// Throws Error(bad_input): unsupported fields by name, wrong types, lengths that do not agree. Unknown keys are warned
// about, `_...` keys ignored, as diffusers does.
Config parse_config(const Json& json, const std::string& where);

// Reads <folder>/config.json, or the file itself.
Config read_config_file(const std::filesystem::path& path);

}  // namespace laptopdiff::unet
