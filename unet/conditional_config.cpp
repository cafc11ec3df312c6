// UNet2DConditionModel: Stable Diffusion 1.x, 2.x, XL and their students.
#include "runtime/error.h"
#include "unet/config_fields.h"

namespace laptopdiff::unet {
namespace {

using runtime::cat;
using runtime::input_error;
using runtime::ObjectReader;

// conv_in and conv_out pad by (k - 1) / 2: an even kernel would shrink the image.
int odd_kernel(ObjectReader& in, const std::string& key) {
  const int kernel = checked(in.get<int>(key, 3), 1, kMaxKernel, in.where(), key);
  if (kernel % 2 == 0) throw input_error(in.where(), ": `", key, "` is ", kernel, ", expected an odd number");
  return kernel;
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

void check_head_split(const Stage& stage, int heads_or_dim, const std::string& where) {
  if (stage.heads <= 0 || stage.channels % stage.heads != 0) {
    throw input_error(where, ": ", stage.path, " has ", stage.channels, " channels, which ", heads_or_dim,
                      " (attention_head_dim) does not divide");
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

// What is added to the time embedding, or done to it, in UNet2DConditionModel alone.
void read_conditional_embeddings(ObjectReader& in, Config& c) {
  read_class_embedding(in, c);
  read_added_embedding(in, c);
  c.class_embeddings_concat = in.get<bool>("class_embeddings_concat", false);
  if (c.class_embeddings_concat && (c.class_embedding == ClassEmbedding::none || c.text_time)) {
    throw input_error(in.where(), ": `class_embeddings_concat` needs class embeddings and cannot be combined with ",
                      "`addition_embed_type`: the ResNets' time embedding would not have the width they expect");
  }
  c.block_time_dim = c.time_embed_dim * (c.class_embeddings_concat ? 2 : 1);
  if (in.has("time_cond_proj_dim")) c.time_cond_proj_dim = positive(in, "time_cond_proj_dim", 0);
  const auto activation = [&](const char* key, bool& given, Activation& kind) {
    const auto name = in.get<std::string>(key, "");
    given = in.has(key);
    if (given) kind = parse_activation(name, cat(in.where(), ": `", key, "`"));
  };
  in.ignore("time_cond_proj_dim");
  activation("timestep_post_act", c.time_embedding_post_act, c.time_post_act);
  activation("time_embedding_act_fn", c.time_embed_act, c.time_act);
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

// The values a UNet2DConditionModel has a stage, in down order.
struct PerStage {
  std::vector<int> layers, heads, context;
  std::vector<bool> only_cross;
  std::vector<Json> down_depth, up_depth;
  bool skip_time_act = false;  // these two reach only the ResnetDownsample and ResnetUpsample blocks
  double output_scale = 1.0;
};

PerStage read_per_stage(ObjectReader& in, const Config& c, std::size_t n) {
  PerStage values;
  values.layers = per_stage(in, "layers_per_block", 2, n);
  for (const int count : values.layers) checked(count, 0, kMaxLayers, in.where(), "layers_per_block");
  if (c.raw.contains("attention_head_dim") && c.raw["attention_head_dim"].is_null()) {
    throw input_error(in.where(), ": `attention_head_dim` is null, which only UNet2DModel takes");
  }
  values.heads = per_stage(in, "attention_head_dim", 8, n);
  values.context = per_stage(in, "cross_attention_dim", 1280, n);
  values.only_cross = flags_per_stage(in, "only_cross_attention", n);
  values.down_depth = down_depths(in, n);
  values.up_depth = up_depths(in, values.down_depth);
  values.skip_time_act = in.get<bool>("resnet_skip_time_act", false);
  values.output_scale = nonzero(in, "resnet_out_scale_factor");
  return values;
}

// Fills in what `stage`, the i-th in down order, takes from the lists. `head_dim` is what a plain attention reads.
void complete_stage(Stage& stage, const PerStage& values, std::size_t i, const Json& depth, int head_dim,
                    const Config& c, const std::string& where) {
  if (stage.attention == LayerAttention::transformer) {
    stage.depth = depths(depth, stage.layers, where + ": `transformer_layers_per_block` of " + stage.path);
    stage.heads = values.heads[i];
    stage.context = values.context[i];
    stage.only_cross_attention = values.only_cross[i];
    check_head_split(stage, values.heads[i], where);
  } else if (stage.attention == LayerAttention::plain) {
    set_plain_heads(stage, checked(head_dim, 1, kMaxWidth, where, "attention_head_dim"), where);
    stage.attention_groups = c.norm_groups;
  }
}

void add_conditional_stages(ObjectReader& in, Config& c, const StageLists& lists, const PerStage& values) {
  const std::size_t n = lists.widths.size();
  const auto add = [&](std::vector<Stage>& stages, Stage stage, const BlockType& type, std::size_t i, const Json& depth,
                       int head_dim) {
    complete_stage(stage, values, i, depth, head_dim, c, in.where());
    if (type.scaled) {
      stage.skip_time_act = values.skip_time_act;
      stage.output_scale = values.output_scale;
    }
    stages.push_back(std::move(stage));
  };
  for (std::size_t i = 0; i < n; ++i) {
    const BlockType& type = down_block_type(lists.down_types[i], c.model_class, in.where());
    add(c.down, make_stage(cat("down_blocks.", i), type, lists.widths[i], values.layers[i], i + 1 == n), type, i,
        values.down_depth[i], values.heads[i]);
  }
  for (std::size_t i = 0; i < n; ++i) {
    const std::size_t mirrored = n - 1 - i;
    const BlockType& type = up_block_type(lists.up_types[i], c.model_class, in.where());
    Stage stage =
        make_stage(cat("up_blocks.", i), type, lists.widths[mirrored], values.layers[mirrored] + 1, i + 1 == n);
    stage.upsample_to_skip = stage.attention != LayerAttention::plain;
    // diffusers mirrors every list but this one: a plain attention of up stage i reads attention_head_dim[i].
    add(c.up, std::move(stage), type, mirrored, values.up_depth[i], values.heads[i]);
  }
}

// The middle: in UNet2DConditionModel a cross-attention block, one ResNet, or nothing.
void read_conditional_mid(ObjectReader& in, Config& c, const Json& last_depth, int heads, int context) {
  in.ignore("mid_block_only_cross_attention");  // of UNetMidBlock2DSimpleCrossAttn only
  const Json& raw = in.raw("mid_block_type");
  const double output_scale = nonzero(in, "mid_block_scale_factor");
  if (raw.is_null() && c.raw.contains("mid_block_type")) return;  // null is "no middle", absent is the default
  const auto type = in.get<std::string>("mid_block_type", "UNetMidBlock2DCrossAttn");
  Stage mid;
  mid.output_scale = output_scale;
  mid.path = "mid_block";
  mid.channels = c.down.back().channels;
  if (type == "UNetMidBlock2DCrossAttn") {
    mid.attention = LayerAttention::transformer;
    mid.layers = 2;
    const Json depth = last_depth.is_array() ? (last_depth.empty() ? Json(0) : last_depth[0]) : last_depth;
    mid.depth = depths(depth, 1, in.where() + ": `transformer_layers_per_block`");
    mid.heads = heads;
    mid.context = context;
    check_head_split(mid, heads, in.where());
  } else if (type == "UNetMidBlock2D") {
    mid.layers = 1;
  } else {
    throw input_error(in.where(), ": `mid_block_type`: \"", type, "\" is not supported");
  }
  c.mid.push_back(mid);
}

// All transformers read the same text.
void check_context(const Config& c, const std::string& where) {
  int width = 0;
  for (const auto* stages : {&c.down, &c.mid, &c.up}) {
    for (const Stage& stage : *stages) {
      if (stage.context == 0) continue;
      if (width == 0) width = stage.context;
      if (stage.context != width) {
        throw input_error(where, ": `cross_attention_dim` is ", width, " in one stage and ", stage.context, " in ",
                          stage.path, "; one encoder_hidden_states cannot have both widths");
      }
    }
  }
}

}  // namespace

void read_conditional(ObjectReader& in, Config& c) {
  const StageLists lists =
      read_stage_lists(in, {320, 640, 1280, 1280},
                       {"CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"},
                       {"UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"});
  read_common(in, c, lists.widths);
  refuse_unsupported(in);
  read_conditional_embeddings(in, c);
  c.conv_in_kernel = odd_kernel(in, "conv_in_kernel");
  c.conv_out_kernel = odd_kernel(in, "conv_out_kernel");
  c.linear_projection = in.get<bool>("use_linear_projection", false);
  const PerStage values = read_per_stage(in, c, lists.widths.size());
  add_conditional_stages(in, c, lists, values);
  read_conditional_mid(in, c, values.down_depth.back(), values.heads.back(), values.context.back());
  check_context(c, in.where());
}

}  // namespace laptopdiff::unet
