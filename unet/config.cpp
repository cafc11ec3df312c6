#include "unet/config.h"

#include <algorithm>
#include <map>

#include "runtime/error.h"
#include "runtime/progress.h"

namespace laptopdiff::unet {
namespace {

using runtime::cat;
using runtime::input_error;
using runtime::ObjectReader;

constexpr int kMaxStages = 16;
constexpr int kMaxLayers = 64;
constexpr int kMaxDepth = 256;
constexpr int kMaxWidth = 1 << 20;

Activation parse_activation(const std::string& name, const std::string& where) {
  static const std::map<std::string, Activation> kNames = {{"silu", Activation::silu},
                                                           {"swish", Activation::silu},
                                                           {"gelu", Activation::gelu},
                                                           {"mish", Activation::mish},
                                                           {"relu", Activation::relu}};
  const auto found = kNames.find(name);
  if (found == kNames.end())
    throw input_error(where, ": activation `", name, "` is not supported (silu, gelu, mish, relu)");
  return found->second;
}

double nonzero(ObjectReader& in, const std::string& key) {
  const double value = in.get<double>(key, 1.0);
  if (value == 0) throw input_error(in.where(), ": `", key, "` must not be 0");
  return value;
}

// A value that must be one of a few; everything else in this field changes the maths and is not supported.
void require_default(ObjectReader& in, const std::string& key, const std::vector<Json>& accepted) {
  const Json& value = in.raw(key);
  if (value.is_null()) return;
  if (std::find(accepted.begin(), accepted.end(), value) != accepted.end()) return;
  throw input_error(in.where(), ": `", key, "`: ", value.dump().substr(0, 60), " is not supported");
}

int checked(int value, int low, int high, const std::string& where, const std::string& key) {
  if (value < low || value > high)
    throw input_error(where, ": `", key, "` is ", value, ", expected ", low, " to ", high);
  return value;
}

int positive(ObjectReader& in, const std::string& key, int fallback) {
  return checked(in.get<int>(key, fallback), 1, kMaxWidth, in.where(), key);
}

// int or list of n ints, as diffusers' `int | tuple[int]`.
std::vector<int> per_stage(ObjectReader& in, const std::string& key, int fallback, std::size_t n) {
  const Json& value = in.raw(key);
  if (value.is_array()) {
    auto list = ObjectReader::convert<std::vector<int>>(value, in.where() + ": `" + key + "`");
    if (list.size() != n)
      throw input_error(in.where(), ": `", key, "` has ", list.size(), " entries for ", n, " stages");
    for (const int v : list) checked(v, 0, kMaxWidth, in.where(), key);
    return list;
  }
  const int one = value.is_null() ? fallback : ObjectReader::convert<int>(value, in.where() + ": `" + key + "`");
  return std::vector<int>(n, checked(one, 0, kMaxWidth, in.where(), key));
}

std::vector<bool> flags_per_stage(ObjectReader& in, const std::string& key, std::size_t n) {
  const Json& value = in.raw(key);
  const std::string where = in.where() + ": `" + key + "`";
  if (!value.is_array()) return std::vector<bool>(n, !value.is_null() && ObjectReader::convert<bool>(value, where));
  if (value.size() != n) throw input_error(where, " has ", value.size(), " entries for ", n, " stages");
  std::vector<bool> flags;
  for (const Json& flag : value) flags.push_back(ObjectReader::convert<bool>(flag, where));
  return flags;
}

// One stage's entry of transformer_layers_per_block: an int for all layers, or one int a layer.
std::vector<int> depths(const Json& entry, int layers, const std::string& where) {
  std::vector<int> list;
  if (entry.is_array()) {
    list = ObjectReader::convert<std::vector<int>>(entry, where);
    if (static_cast<int>(list.size()) != layers) {
      throw input_error(where, ": ", entry.dump().substr(0, 60), " has ", list.size(), " entries for ", layers,
                        " layers");
    }
  } else {
    list.assign(static_cast<std::size_t>(layers), ObjectReader::convert<int>(entry, where));
  }
  for (const int depth : list) {
    if (depth < 0 || depth > kMaxDepth) throw input_error(where, ": depth ", depth, " is out of range");
  }
  return list;
}

struct BlockType {
  const char* name;
  ModelClass model_class;
  LayerAttention attention;
  Resample sampler;
};
constexpr BlockType kDownTypes[] = {
    {"CrossAttnDownBlock2D", ModelClass::conditional, LayerAttention::transformer, Resample::conv},
    {"DownBlock2D", ModelClass::conditional, LayerAttention::none, Resample::conv},
    {"ResnetDownsampleBlock2D", ModelClass::conditional, LayerAttention::none, Resample::resnet},
    {"DownBlock2D", ModelClass::unconditional, LayerAttention::none, Resample::conv},
    {"AttnDownBlock2D", ModelClass::unconditional, LayerAttention::plain, Resample::conv},
    {"ResnetDownsampleBlock2D", ModelClass::unconditional, LayerAttention::none, Resample::resnet},
};
constexpr BlockType kUpTypes[] = {
    {"CrossAttnUpBlock2D", ModelClass::conditional, LayerAttention::transformer, Resample::conv},
    {"UpBlock2D", ModelClass::conditional, LayerAttention::none, Resample::conv},
    {"ResnetUpsampleBlock2D", ModelClass::conditional, LayerAttention::none, Resample::resnet},
    {"UpBlock2D", ModelClass::unconditional, LayerAttention::none, Resample::conv},
    {"AttnUpBlock2D", ModelClass::unconditional, LayerAttention::plain, Resample::conv},
    {"ResnetUpsampleBlock2D", ModelClass::unconditional, LayerAttention::none, Resample::resnet},
};

template <std::size_t N>
const BlockType& block_type(const BlockType (&table)[N], const std::string& name, ModelClass model_class,
                            const std::string& where) {
  std::vector<std::string> known;
  for (const BlockType& row : table) {
    if (row.model_class != model_class) continue;
    if (row.name == name) return row;
    known.emplace_back(row.name);
  }
  throw input_error(where, ": block type `", name.substr(0, 60), "` is not supported (known: ", runtime::join(known),
                    ")");
}

std::vector<std::string> block_names(ObjectReader& in, const std::string& key,
                                     const std::vector<std::string>& fallback) {
  return in.get<std::vector<std::string>>(key, fallback);
}

void read_sample_size(ObjectReader& in, Config& c) {
  const Json& value = in.raw("sample_size");
  if (value.is_array()) {
    const auto sizes = ObjectReader::convert<std::vector<int>>(value, in.where() + ": `sample_size`");
    if (sizes.size() != 2) throw input_error(in.where(), ": `sample_size` must be one number or [height, width]");
    c.sample_height = checked(sizes[0], 1, kMaxWidth, in.where(), "sample_size");
    c.sample_width = checked(sizes[1], 1, kMaxWidth, in.where(), "sample_size");
  } else if (!value.is_null()) {
    c.sample_height = c.sample_width = checked(ObjectReader::convert<int>(value, in.where() + ": `sample_size`"), 1,
                                               kMaxWidth, in.where(), "sample_size");
  }
}

// The fields that both classes share.
void read_common(ObjectReader& in, Config& c, const std::vector<int>& widths) {
  read_sample_size(in, c);
  const int default_channels = c.model_class == ModelClass::conditional ? 4 : 3;
  c.in_channels = positive(in, "in_channels", default_channels);
  c.out_channels = positive(in, "out_channels", default_channels);
  c.center_input_sample = in.get<bool>("center_input_sample", false);
  c.flip_sin_to_cos = in.get<bool>("flip_sin_to_cos", true);
  c.freq_shift = in.get<double>("freq_shift", 0);
  c.act = parse_activation(in.get<std::string>("act_fn", "silu"), in.where() + ": `act_fn`");
  c.norm_eps = in.get<double>("norm_eps", 1e-5);
  if (c.norm_eps <= 0) throw input_error(in.where(), ": `norm_eps` must be positive");
  c.downsample_padding = checked(in.get<int>("downsample_padding", 1), 0, 1, in.where(), "downsample_padding");
  const auto shift = in.get<std::string>("resnet_time_scale_shift", "default");
  if (shift != "default" && shift != "scale_shift") {
    throw input_error(in.where(), ": `resnet_time_scale_shift`: \"", shift, "\" is not supported");
  }
  c.time_scale_shift = shift == "default" ? TimeScaleShift::shift : TimeScaleShift::scale_shift;
  in.ignore("dropout");  // training only; students here train without it
  require_default(in, "time_embedding_type", {"positional"});
  c.time_channels = widths[0];
  const bool has_dim = in.has("time_embedding_dim");
  c.time_embed_dim = has_dim ? positive(in, "time_embedding_dim", 0) : (in.ignore("time_embedding_dim"), 4 * widths[0]);
  if (widths[0] % 2 != 0) throw input_error(in.where(), ": block_out_channels[0] must be even, is ", widths[0]);
}

void read_class_embedding(ObjectReader& in, Config& c) {
  const auto type = in.get<std::string>("class_embed_type", "");
  const int table = in.get<int>("num_class_embeds", 0);
  const bool conditional = c.model_class == ModelClass::conditional;
  const int projection = conditional ? in.get<int>("projection_class_embeddings_input_dim", 0) : 0;
  if (type.empty()) {
    c.class_embedding = in.has("num_class_embeds") ? ClassEmbedding::table : ClassEmbedding::none;
  } else if (type == "timestep") {
    c.class_embedding = ClassEmbedding::timestep;
  } else if (type == "identity") {
    c.class_embedding = ClassEmbedding::identity;
  } else if (conditional && (type == "projection" || type == "simple_projection")) {
    c.class_embedding = type == "projection" ? ClassEmbedding::projection : ClassEmbedding::simple_projection;
    if (projection <= 0) {
      throw input_error(in.where(), ": `class_embed_type` ", type, " needs `projection_class_embeddings_input_dim`");
    }
    c.class_projection_dim = checked(projection, 1, kMaxWidth, in.where(), "projection_class_embeddings_input_dim");
  } else {
    throw input_error(in.where(), ": `class_embed_type`: \"", type, "\" is not supported");
  }
  if (c.class_embedding == ClassEmbedding::table) {
    c.num_class_embeds = checked(table, 1, kMaxWidth, in.where(), "num_class_embeds");
  }
}

void read_added_embedding(ObjectReader& in, Config& c) {
  require_default(in, "addition_embed_type", {"text_time"});
  in.ignore("addition_embed_type_num_heads");  // of the `text` type only
  const int time_dim = in.get<int>("addition_time_embed_dim", 0);
  if (!in.has("addition_embed_type")) return;
  c.text_time = true;
  c.addition_time_embed_dim = checked(time_dim, 2, kMaxWidth, in.where(), "addition_time_embed_dim");
  c.add_projection_dim = checked(in.get<int>("projection_class_embeddings_input_dim", 0), 1, kMaxWidth, in.where(),
                                 "projection_class_embeddings_input_dim");
}

// Fields of UNet2DConditionModel that this toolkit runs only at their plain setting.
void refuse_unsupported(ObjectReader& in) {
  require_default(in, "dual_cross_attention", {false});
  require_default(in, "num_attention_heads", {});
  require_default(in, "encoder_hid_dim", {});
  require_default(in, "encoder_hid_dim_type", {});
  require_default(in, "attention_type", {"default"});
  require_default(in, "cross_attention_norm", {});
  in.ignore("upcast_attention");  // diffusers' fused attention ignores it too
}

void check_head_split(const Stage& stage, int heads_or_dim, const std::string& where) {
  if (stage.heads <= 0 || stage.channels % stage.heads != 0) {
    throw input_error(where, ": ", stage.path, " has ", stage.channels, " channels, which ", heads_or_dim,
                      " (attention_head_dim) does not divide");
  }
}

Stage make_stage(const std::string& path, const BlockType& type, int channels, int layers, bool last) {
  Stage stage;
  stage.path = path;
  stage.attention = type.attention;
  stage.sampler = last ? Resample::none : type.sampler;
  stage.channels = channels;
  stage.layers = layers;
  return stage;
}

// The middle: in UNet2DConditionModel a cross-attention block, one ResNet, or nothing.
void read_conditional_mid(ObjectReader& in, Config& c, const Stage& last, const Json& last_depth, bool only_cross,
                          int heads, int context) {
  const Json& raw = in.raw("mid_block_type");
  const double output_scale = nonzero(in, "mid_block_scale_factor");
  if (raw.is_null() && c.raw.contains("mid_block_type")) return;  // null is "no middle", absent is the default
  const auto type = in.get<std::string>("mid_block_type", "UNetMidBlock2DCrossAttn");
  Stage mid;
  mid.output_scale = output_scale;
  mid.path = "mid_block";
  mid.channels = last.channels;
  if (type == "UNetMidBlock2DCrossAttn") {
    mid.attention = LayerAttention::transformer;
    mid.layers = 2;
    const Json depth = last_depth.is_array() ? (last_depth.empty() ? Json(0) : last_depth[0]) : last_depth;
    mid.depth = depths(depth, 1, in.where() + ": `transformer_layers_per_block`");
    mid.heads = heads;
    mid.context = context;
    mid.only_cross_attention = only_cross;
    check_head_split(mid, heads, in.where());
  } else if (type == "UNetMidBlock2D") {
    mid.layers = 1;
  } else {
    throw input_error(in.where(), ": `mid_block_type`: \"", type, "\" is not supported");
  }
  c.mid.push_back(mid);
}

void add_conditional_stage(std::vector<Stage>& stages, Stage stage, const Json& depth, int heads, int context,
                           bool only_cross, const std::string& where) {
  if (stage.attention == LayerAttention::transformer) {
    stage.depth = depths(depth, stage.layers, where + ": `transformer_layers_per_block` of " + stage.path);
    stage.heads = heads;
    stage.context = context;
    stage.only_cross_attention = only_cross;
    check_head_split(stage, heads, where);
  }
  stages.push_back(std::move(stage));
}

struct StageLists {
  std::vector<int> widths;
  std::vector<std::string> down_types, up_types;
};

StageLists read_stage_lists(ObjectReader& in, const std::vector<int>& widths, const std::vector<std::string>& down,
                            const std::vector<std::string>& up) {
  StageLists lists{in.get<std::vector<int>>("block_out_channels", widths), block_names(in, "down_block_types", down),
                   block_names(in, "up_block_types", up)};
  const std::size_t n = lists.widths.size();
  if (n == 0 || n > kMaxStages)
    throw input_error(in.where(), ": `block_out_channels` has ", n, " entries, expected 1 to ", kMaxStages);
  for (const int width : lists.widths) checked(width, 1, kMaxWidth, in.where(), "block_out_channels");
  if (lists.down_types.size() != n || lists.up_types.size() != n) {
    throw input_error(in.where(), ": ", n, " `block_out_channels`, ", lists.down_types.size(),
                      " `down_block_types` and ", lists.up_types.size(), " `up_block_types` must be equally many");
  }
  return lists;
}

// The entries of reverse_transformer_layers_per_block (up order), or the down entries mirrored.
std::vector<Json> up_depths(ObjectReader& in, const std::vector<Json>& down) {
  const Json& reverse = in.raw("reverse_transformer_layers_per_block");
  const std::string where = in.where() + ": `reverse_transformer_layers_per_block`";
  if (reverse.is_null()) {
    for (const Json& entry : down) {
      if (entry.is_array()) throw input_error(where, " is needed where transformer_layers_per_block is nested");
    }
    return {down.rbegin(), down.rend()};
  }
  if (!reverse.is_array() || reverse.size() != down.size())
    throw input_error(where, " must be a list of ", down.size(), " entries");
  return {reverse.begin(), reverse.end()};
}

std::vector<Json> down_depths(ObjectReader& in, std::size_t n) {
  const Json& value = in.raw("transformer_layers_per_block");
  if (!value.is_array()) return std::vector<Json>(n, value.is_null() ? Json(1) : value);
  if (value.size() != n) {
    throw input_error(in.where(), ": `transformer_layers_per_block` has ", value.size(), " entries for ", n, " stages");
  }
  return {value.begin(), value.end()};
}

void read_conditional(ObjectReader& in, Config& c) {
  const StageLists lists =
      read_stage_lists(in, {320, 640, 1280, 1280},
                       {"CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"},
                       {"UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"});
  const std::size_t n = lists.widths.size();
  read_common(in, c, lists.widths);
  refuse_unsupported(in);
  read_class_embedding(in, c);
  read_added_embedding(in, c);
  c.class_embeddings_concat = in.get<bool>("class_embeddings_concat", false);
  c.block_time_dim = c.time_embed_dim * (c.class_embeddings_concat ? 2 : 1);
  c.time_cond_proj_dim = in.get<int>("time_cond_proj_dim", 0);
  if (in.has("timestep_post_act")) {
    c.time_embedding_post_act = true;
    c.time_post_act =
        parse_activation(in.required<std::string>("timestep_post_act"), in.where() + ": `timestep_post_act`");
  }
  if (in.has("time_embedding_act_fn")) {
    c.time_embed_act = true;
    c.time_act =
        parse_activation(in.required<std::string>("time_embedding_act_fn"), in.where() + ": `time_embedding_act_fn`");
  }
  for (const char* key : {"timestep_post_act", "time_embedding_act_fn"}) in.ignore(key);
  c.conv_in_kernel = positive(in, "conv_in_kernel", 3);
  c.conv_out_kernel = positive(in, "conv_out_kernel", 3);
  // These two reach only the ResnetDownsample and ResnetUpsample blocks.
  const bool skip_time_act = in.get<bool>("resnet_skip_time_act", false);
  const double output_scale = nonzero(in, "resnet_out_scale_factor");
  c.linear_projection = in.get<bool>("use_linear_projection", false);
  c.norm_out = !(c.raw.contains("norm_num_groups") && c.raw["norm_num_groups"].is_null());
  c.norm_groups = positive(in, "norm_num_groups", 32);

  const std::vector<int> layers = per_stage(in, "layers_per_block", 2, n),
                         heads = per_stage(in, "attention_head_dim", 8, n),
                         context = per_stage(in, "cross_attention_dim", 1280, n);
  for (const int count : layers) checked(count, 0, kMaxLayers, in.where(), "layers_per_block");
  const std::vector<bool> only_cross = flags_per_stage(in, "only_cross_attention", n);
  const Json& only_cross_raw = in.raw("only_cross_attention");
  const bool mid_only_cross =
      in.get<bool>("mid_block_only_cross_attention", only_cross_raw.is_boolean() && only_cross_raw.get<bool>());
  const std::vector<Json> down_depth = down_depths(in, n), up_depth = up_depths(in, down_depth);

  for (std::size_t i = 0; i < n; ++i) {
    const BlockType& type = block_type(kDownTypes, lists.down_types[i], c.model_class, in.where());
    add_conditional_stage(c.down, make_stage(cat("down_blocks.", i), type, lists.widths[i], layers[i], i + 1 == n),
                          down_depth[i], heads[i], context[i], only_cross[i], in.where());
  }
  read_conditional_mid(in, c, c.down.back(), down_depth.back(), mid_only_cross, heads.back(), context.back());
  for (std::size_t i = 0; i < n; ++i) {
    const std::size_t mirrored = n - 1 - i;
    const BlockType& type = block_type(kUpTypes, lists.up_types[i], c.model_class, in.where());
    add_conditional_stage(
        c.up, make_stage(cat("up_blocks.", i), type, lists.widths[mirrored], layers[mirrored] + 1, i + 1 == n),
        up_depth[i], heads[mirrored], context[mirrored], only_cross[mirrored], in.where());
  }
  for (std::size_t i = 0; i < n; ++i) {
    const auto set = [&](Stage& stage, const std::string& type) {
      if (type.rfind("Resnet", 0) != 0) return;
      stage.skip_time_act = skip_time_act;
      stage.output_scale = output_scale;
    };
    set(c.down[i], lists.down_types[i]);
    set(c.up[i], lists.up_types[i]);
  }
}

// Plain attention: attention_head_dim is the head size here (null: one head of full width).
void set_plain_heads(Stage& stage, int head_dim, const std::string& where) {
  stage.heads = head_dim == 0 ? 1 : stage.channels / head_dim;
  if (stage.heads * (head_dim == 0 ? stage.channels : head_dim) != stage.channels) {
    throw input_error(where, ": ", stage.path, " has ", stage.channels, " channels, which `attention_head_dim` ",
                      head_dim, " does not divide");
  }
}

void read_unconditional(ObjectReader& in, Config& c) {
  const StageLists lists = read_stage_lists(in, {224, 448, 672, 896},
                                            {"DownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D", "AttnDownBlock2D"},
                                            {"AttnUpBlock2D", "AttnUpBlock2D", "AttnUpBlock2D", "UpBlock2D"});
  const std::size_t n = lists.widths.size();
  read_common(in, c, lists.widths);
  read_class_embedding(in, c);
  c.block_time_dim = c.time_embed_dim;
  c.norm_groups = positive(in, "norm_num_groups", 32);
  in.ignore("num_train_timesteps");
  const auto sampler = [&](const char* key) {
    const auto kind = in.get<std::string>(key, "conv");
    if (kind != "conv" && kind != "resnet")
      throw input_error(in.where(), ": `", key, "`: \"", kind, "\" is not supported");
    return kind == "conv" ? Resample::conv : Resample::resnet;
  };
  const Resample down_sampler = sampler("downsample_type"), up_sampler = sampler("upsample_type");
  const int layers = checked(in.get<int>("layers_per_block", 2), 1, kMaxLayers, in.where(), "layers_per_block");
  const bool null_head = c.raw.contains("attention_head_dim") && c.raw["attention_head_dim"].is_null();
  const int head_dim = in.get<int>("attention_head_dim", null_head ? 0 : 8);
  if (head_dim < 0 || (head_dim == 0 && !null_head))
    throw input_error(in.where(), ": `attention_head_dim` must be positive or null");

  const auto add = [&](std::vector<Stage>& stages, Stage stage, Resample kind) {
    // Only the attention stages of this class listen to downsample_type and upsample_type.
    if (stage.attention == LayerAttention::plain && stage.sampler != Resample::none) stage.sampler = kind;
    if (stage.attention == LayerAttention::plain) {
      set_plain_heads(stage, head_dim, in.where());
      stage.attention_groups = c.norm_groups;
    }
    stages.push_back(std::move(stage));
  };
  for (std::size_t i = 0; i < n; ++i) {
    const BlockType& type = block_type(kDownTypes, lists.down_types[i], c.model_class, in.where());
    add(c.down, make_stage(cat("down_blocks.", i), type, lists.widths[i], layers, i + 1 == n), down_sampler);
    const std::size_t mirrored = n - 1 - i;
    const BlockType& up = block_type(kUpTypes, lists.up_types[i], c.model_class, in.where());
    add(c.up, make_stage(cat("up_blocks.", i), up, lists.widths[mirrored], layers + 1, i + 1 == n), up_sampler);
  }

  const bool add_attention = in.get<bool>("add_attention", true);
  const int attention_groups = in.get<int>("attn_norm_num_groups", 0);
  const bool no_mid = c.raw.contains("mid_block_type") && c.raw["mid_block_type"].is_null();
  require_default(in, "mid_block_type", {"UNetMidBlock2D"});
  const double output_scale = nonzero(in, "mid_block_scale_factor");
  if (no_mid) return;
  Stage mid;
  mid.output_scale = output_scale;
  mid.path = "mid_block";
  mid.channels = lists.widths.back();
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

void check_groups(const Config& c, const std::string& where) {
  for (const auto* stages : {&c.down, &c.mid, &c.up}) {
    for (const Stage& stage : *stages) {
      if (stage.channels % c.norm_groups != 0) {
        throw input_error(where, ": ", stage.path, " has ", stage.channels, " channels, which norm_num_groups ",
                          c.norm_groups, " does not divide");
      }
    }
  }
}

}  // namespace

const char* Config::class_name() const {
  return model_class == ModelClass::conditional ? "UNet2DConditionModel" : "UNet2DModel";
}

Config parse_config(const Json& json, const std::string& where) {
  ObjectReader in(json, where);
  Config c;
  c.raw = json;
  const auto name = in.required<std::string>("_class_name");
  if (name == "UNet2DConditionModel") {
    c.model_class = ModelClass::conditional;
    read_conditional(in, c);
  } else if (name == "UNet2DModel") {
    c.model_class = ModelClass::unconditional;
    read_unconditional(in, c);
  } else {
    throw input_error(where, ": `_class_name` is \"", name.substr(0, 60),
                      "\", expected UNet2DConditionModel or UNet2DModel");
  }
  check_groups(c, where);
  for (const std::string& key : in.unread()) {
    if (key.front() != '_') runtime::warn(cat(where, ": unknown key `", key, "` is ignored"));
  }
  return c;
}

Config read_config_file(const std::filesystem::path& path) {
  const auto file = std::filesystem::is_directory(path) ? path / "config.json" : path;
  return parse_config(runtime::read_json(file), file.string());
}

}  // namespace laptopdiff::unet
