#include "unet/config_fields.h"

#include <algorithm>
#include <cctype>
#include <map>

#include "runtime/error.h"

namespace laptopdiff::unet {
namespace {

using runtime::input_error;
using runtime::ObjectReader;

constexpr BlockType kDownTypes[] = {
    {"CrossAttnDownBlock2D", LayerAttention::transformer, Resample::conv, false},
    {"DownBlock2D", LayerAttention::none, Resample::conv, false},
    {"AttnDownBlock2D", LayerAttention::plain, Resample::conv, false},
    {"ResnetDownsampleBlock2D", LayerAttention::none, Resample::resnet, true},
};
constexpr BlockType kUpTypes[] = {
    {"CrossAttnUpBlock2D", LayerAttention::transformer, Resample::conv, false},
    {"UpBlock2D", LayerAttention::none, Resample::conv, false},
    {"AttnUpBlock2D", LayerAttention::plain, Resample::conv, false},
    {"ResnetUpsampleBlock2D", LayerAttention::none, Resample::resnet, true},
};

// The row of `name`, which `key` holds. Only UNet2DConditionModel has text to attend to.
template <std::size_t N>
const BlockType& block_type(const BlockType (&table)[N], const std::string& key, const std::string& name,
                            ModelClass model_class, const std::string& where) {
  constexpr const char* kOldPrefix = "UNetRes";  // diffusers still takes the names it used before 0.1
  const std::string plain = name.rfind(kOldPrefix, 0) == 0 ? name.substr(std::string(kOldPrefix).size()) : name;
  std::vector<std::string> known;
  for (const BlockType& row : table) {
    if (row.attention == LayerAttention::transformer && model_class == ModelClass::unconditional) continue;
    if (row.name == plain) return row;
    known.emplace_back(row.name);
  }
  throw input_error(where, ": `", key, "`: block type `", name.substr(0, 60),
                    "` is not supported (known: ", runtime::join(known), ")");
}

// diffusers takes a null for what it says, not for the default, and cannot build or run a model with these null.
void refuse_nulls(const Json& config, const std::string& where) {
  static const char* const kNeeded[] = {"act_fn",
                                        "block_out_channels",
                                        "conv_in_kernel",
                                        "conv_out_kernel",
                                        "cross_attention_dim",
                                        "down_block_types",
                                        "downsample_padding",
                                        "freq_shift",
                                        "in_channels",
                                        "layers_per_block",
                                        "mid_block_scale_factor",
                                        "norm_eps",
                                        "norm_num_groups",
                                        "only_cross_attention",
                                        "out_channels",
                                        "resnet_out_scale_factor",
                                        "resnet_time_scale_shift",
                                        "time_embedding_type",
                                        "transformer_layers_per_block",
                                        "up_block_types"};
  for (const char* key : kNeeded) {
    const auto found = config.find(key);
    if (found != config.end() && found->is_null())
      throw input_error(where, ": `", key, "` is null; leave it out for its default");
  }
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

}  // namespace

Activation parse_activation(std::string name, const std::string& where) {
  static const std::map<std::string, Activation> kNames = {{"silu", Activation::silu},
                                                           {"swish", Activation::silu},
                                                           {"gelu", Activation::gelu},
                                                           {"mish", Activation::mish},
                                                           {"relu", Activation::relu}};
  std::transform(name.begin(), name.end(), name.begin(), [](unsigned char letter) { return std::tolower(letter); });
  const auto found = kNames.find(name);
  if (found == kNames.end())
    throw input_error(where, ": activation `", name.substr(0, 60), "` is not supported (silu, gelu, mish, relu)");
  return found->second;
}

int checked(int value, int low, int high, const std::string& where, const std::string& key) {
  if (value < low || value > high)
    throw input_error(where, ": `", key, "` is ", value, ", expected ", low, " to ", high);
  return value;
}

int positive(ObjectReader& in, const std::string& key, int fallback) {
  return checked(in.get<int>(key, fallback), 1, kMaxWidth, in.where(), key);
}

double nonzero(ObjectReader& in, const std::string& key) {
  const double value = in.get<double>(key, 1.0);
  if (value == 0) throw input_error(in.where(), ": `", key, "` must not be 0");
  return value;
}

void require_default(ObjectReader& in, const std::string& key, const std::vector<Json>& accepted) {
  const Json& value = in.raw(key);
  if (value.is_null()) return;
  if (std::find(accepted.begin(), accepted.end(), value) != accepted.end()) return;
  throw input_error(in.where(), ": `", key, "`: ", value.dump().substr(0, 60), " is not supported");
}

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

const BlockType& down_block_type(const std::string& name, ModelClass model_class, const std::string& where) {
  return block_type(kDownTypes, "down_block_types", name, model_class, where);
}

const BlockType& up_block_type(const std::string& name, ModelClass model_class, const std::string& where) {
  return block_type(kUpTypes, "up_block_types", name, model_class, where);
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

void set_plain_heads(Stage& stage, int head_dim, const std::string& where) {
  stage.heads = head_dim == 0 ? 1 : stage.channels / head_dim;
  if (stage.heads * (head_dim == 0 ? stage.channels : head_dim) != stage.channels) {
    throw input_error(where, ": ", stage.path, " has ", stage.channels, " channels, which `attention_head_dim` ",
                      head_dim, " does not divide");
  }
}

StageLists read_stage_lists(ObjectReader& in, const std::vector<int>& widths, const std::vector<std::string>& down,
                            const std::vector<std::string>& up) {
  StageLists lists{in.get<std::vector<int>>("block_out_channels", widths),
                   in.get<std::vector<std::string>>("down_block_types", down),
                   in.get<std::vector<std::string>>("up_block_types", up)};
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

void read_common(ObjectReader& in, Config& c, const std::vector<int>& widths) {
  refuse_nulls(c.raw, in.where());
  read_sample_size(in, c);
  const int default_channels = c.model_class == ModelClass::conditional ? 4 : 3;
  c.in_channels = positive(in, "in_channels", default_channels);
  c.out_channels = positive(in, "out_channels", default_channels);
  c.center_input_sample = in.get<bool>("center_input_sample", false);
  c.flip_sin_to_cos = in.get<bool>("flip_sin_to_cos", !c.raw.contains("flip_sin_to_cos"));  // null is false
  c.freq_shift = in.get<double>("freq_shift", 0);
  c.norm_groups = positive(in, "norm_num_groups", 32);
  c.act = parse_activation(in.get<std::string>("act_fn", "silu"), in.where() + ": `act_fn`");
  c.norm_eps = in.get<double>("norm_eps", 1e-5);
  if (c.norm_eps < 0) throw input_error(in.where(), ": `norm_eps` must not be negative");
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

}  // namespace laptopdiff::unet
