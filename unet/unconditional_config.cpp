// UNet2DModel: DDPM and class-conditional models.
#include "runtime/error.h"
#include "unet/config_fields.h"

namespace laptopdiff::unet {
namespace {

using runtime::cat;
using runtime::input_error;
using runtime::ObjectReader;

struct Settings {
  int layers = 2;
  int head_dim = 0;  // 0: one head of full width
  Resample down_sampler = Resample::conv, up_sampler = Resample::conv;
};

Resample read_sampler(ObjectReader& in, const std::string& key) {
  const auto kind = in.get<std::string>(key, "conv");
  if (kind != "conv" && kind != "resnet")
    throw input_error(in.where(), ": `", key, "`: \"", kind, "\" is not supported");
  return kind == "conv" ? Resample::conv : Resample::resnet;
}

Settings read_settings(ObjectReader& in, const Config& c) {
  Settings settings;
  settings.down_sampler = read_sampler(in, "downsample_type");
  settings.up_sampler = read_sampler(in, "upsample_type");
  settings.layers = checked(in.get<int>("layers_per_block", 2), 1, kMaxLayers, in.where(), "layers_per_block");
  const bool null_head = c.raw.contains("attention_head_dim") && c.raw["attention_head_dim"].is_null();
  settings.head_dim = in.get<int>("attention_head_dim", null_head ? 0 : 8);
  if (settings.head_dim < 0 || (settings.head_dim == 0 && !null_head))
    throw input_error(in.where(), ": `attention_head_dim` must be positive or null");
  return settings;
}

void add_stages(const StageLists& lists, const Settings& settings, Config& c, const std::string& where) {
  const auto add = [&](std::vector<Stage>& stages, Stage stage, Resample kind) {
    // Only the attention stages of this class listen to downsample_type and upsample_type.
    if (stage.attention == LayerAttention::plain && stage.sampler != Resample::none) stage.sampler = kind;
    if (stage.attention == LayerAttention::plain) {
      set_plain_heads(stage, settings.head_dim, where);
      stage.attention_groups = c.norm_groups;
    }
    stages.push_back(std::move(stage));
  };
  const std::size_t n = lists.widths.size();
  for (std::size_t i = 0; i < n; ++i) {
    const bool last = i + 1 == n;
    const BlockType& down = down_block_type(lists.down_types[i], c.model_class, where);
    add(c.down, make_stage(cat("down_blocks.", i), down, lists.widths[i], settings.layers, last),
        settings.down_sampler);
    const BlockType& up = up_block_type(lists.up_types[i], c.model_class, where);
    add(c.up, make_stage(cat("up_blocks.", i), up, lists.widths[n - 1 - i], settings.layers + 1, last),
        settings.up_sampler);
  }
}

void read_mid(ObjectReader& in, int channels, int head_dim, Config& c) {
  const bool add_attention = in.get<bool>("add_attention", true);
  const int attention_groups = in.has("attn_norm_num_groups") ? positive(in, "attn_norm_num_groups", 1) : 0;
  in.ignore("attn_norm_num_groups");
  if (attention_groups > 0 && channels % attention_groups != 0) {
    throw input_error(in.where(), ": `attn_norm_num_groups` ", attention_groups, " does not divide the ", channels,
                      " channels of mid_block");
  }
  const bool no_mid = c.raw.contains("mid_block_type") && c.raw["mid_block_type"].is_null();
  require_default(in, "mid_block_type", {"UNetMidBlock2D"});
  const double output_scale = nonzero(in, "mid_block_scale_factor");
  if (no_mid) return;
  Stage mid;
  mid.output_scale = output_scale;
  mid.path = "mid_block";
  mid.channels = channels;
  mid.layers = 2;
  if (add_attention) {
    mid.attention = LayerAttention::plain;
    set_plain_heads(mid, head_dim, in.where());
    // diffusers: with scale_shift the middle attention has no norm of its own unless attn_norm_num_groups is given.
    mid.attention_norm = attention_groups > 0 || c.time_scale_shift == TimeScaleShift::shift;
    mid.attention_groups = attention_groups > 0 ? attention_groups : c.norm_groups;
  }
  c.mid.push_back(mid);
}

}  // namespace

void read_unconditional(ObjectReader& in, Config& c) {
  const StageLists lists = read_stage_lists(in, {224, 448, 672, 896},
                                            {"DownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D"},
                                            {"AttnUpBlock2D", "AttnUpBlock2D", "AttnUpBlock2D", "UpBlock2D"});
  read_common(in, c, lists.widths);
  read_class_embedding(in, c);
  c.block_time_dim = c.time_embed_dim;
  in.ignore("num_train_timesteps");
  const Settings settings = read_settings(in, c);
  add_stages(lists, settings, c, in.where());
  read_mid(in, lists.widths.back(), settings.head_dim, c);
}

}  // namespace laptopdiff::unet
