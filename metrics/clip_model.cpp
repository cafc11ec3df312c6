#include "metrics/clip_model.h"

#include <torch/nn/module.h>
#include <torch/nn/modules/container/modulelist.h>
#include <torch/types.h>

#include "diffusion/component.h"
#include "diffusion/layers.h"
#include "diffusion/text_encoder.h"
#include "diffusion/tokenizer.h"
#include "runtime/error.h"
#include "runtime/tensors.h"
#include "runtime/weight_files.h"

namespace laptopdiff::metrics {
namespace {

using namespace runtime;
namespace fs = std::filesystem;

// Texts and pictures go through the towers in parts of this many, so that memory does not grow with N.
constexpr std::int64_t kBatch = 64;

class VisionEmbeddings : public torch::nn::Module {
 public:
  explicit VisionEmbeddings(const ClipVisionConfig& config)
      : patch_embedding_(config.num_channels, config.hidden_size,
                         diffusion::ConvShape{config.patch_size, config.patch_size, 0}, diffusion::Bias::without),
        position_embedding_(positions(config), config.hidden_size) {
    class_embedding_ = register_parameter("class_embedding", torch::empty({config.hidden_size}));
    register_module("patch_embedding", patch_embedding_);
    register_module("position_embedding", position_embedding_);
  }

  at::Tensor forward(const at::Tensor& pixels) {                                              // [N, C, S, S]
    const at::Tensor patches = patch_embedding_->forward(pixels).flatten(2).transpose(1, 2);  // [N, patches, D]
    const at::Tensor start = class_embedding_.expand({pixels.size(0), 1, -1});
    return at::cat({start, patches}, 1) + position_embedding_->weight;
  }

 private:
  static std::int64_t positions(const ClipVisionConfig& config) {
    const std::int64_t side = config.image_size / config.patch_size;
    return side * side + 1;
  }

  at::Tensor class_embedding_;
  diffusion::Conv2d patch_embedding_;
  diffusion::Embedding position_embedding_;
};

diffusion::ClipBlockShape block_shape(const ClipVisionConfig& config) {
  return {config.hidden_size, config.num_attention_heads, config.intermediate_size, config.hidden_act,
          config.layer_norm_eps};
}

class VisionModel : public torch::nn::Module {
 public:
  explicit VisionModel(const ClipVisionConfig& config)
      : embeddings_(std::make_shared<VisionEmbeddings>(config)),
        pre_norm_(config.hidden_size, config.layer_norm_eps),
        post_norm_(config.hidden_size, config.layer_norm_eps),
        encoder_(block_shape(config), config.num_hidden_layers) {
    register_module("embeddings", embeddings_);
    register_module("pre_layrnorm", pre_norm_);  // misspelt in the published layout
    register_module("encoder", encoder_);
    register_module("post_layernorm", post_norm_);
  }

  at::Tensor forward(const at::Tensor& pixels) {
    const at::Tensor x = pre_norm_->forward(embeddings_->forward(pixels));
    const at::Tensor last = encoder_->forward(x, diffusion::Attend::all).back();  // [N, 1 + patches, D]
    return post_norm_->forward(last.select(1, 0));
  }

 private:
  std::shared_ptr<VisionEmbeddings> embeddings_;
  diffusion::LayerNorm pre_norm_, post_norm_;
  diffusion::ClipEncoder encoder_;
};

// All of a CLIPModel but its text half, under its names.
class VisionHalf : public torch::nn::Module {
 public:
  explicit VisionHalf(const ClipVisionConfig& config)
      : vision_model_(std::make_shared<VisionModel>(config)),
        visual_projection_(config.hidden_size, config.projection_dim, diffusion::Bias::without) {
    register_module("vision_model", vision_model_);
    register_module("visual_projection", visual_projection_);
    logit_scale_ = register_parameter("logit_scale", torch::empty({}));
  }

  at::Tensor forward(const at::Tensor& pixels) { return visual_projection_->forward(vision_model_->forward(pixels)); }
  double logit_scale() const { return logit_scale_.item<double>(); }

 private:
  std::shared_ptr<VisionModel> vision_model_;
  diffusion::Linear visual_projection_;
  at::Tensor logit_scale_;
};

// transformers lets `vision_config_dict` of old files stand for the whole of `vision_config`; likewise for text.
Json without_legacy_sections(Json config) {
  if (!config.is_object()) return config;
  for (const char* section : {"text_config", "vision_config"}) {
    const auto legacy = config.find(std::string(section) + "_dict");
    if (legacy != config.end() && legacy->is_object()) config[section] = *legacy;
  }
  return config;
}

// `image_size` and `patch_size` may be a number or [height, width].
std::int64_t square_side(ObjectReader& in, const std::string& key, std::int64_t fallback) {
  if (!in.has(key)) return fallback;
  const Json& value = in.raw(key);
  const std::string where = in.where() + ": `" + key + "`";
  if (!value.is_array()) return ObjectReader::convert<std::int64_t>(value, where);
  if (value.size() != 2 || value[0] != value[1]) throw input_error(where, " must be square, is ", value.dump());
  return ObjectReader::convert<std::int64_t>(value[0], where);
}

void check(const ClipVisionConfig& config, const std::string& where) {
  const std::pair<const char*, std::int64_t> sizes[] = {{"hidden_size", config.hidden_size},
                                                        {"intermediate_size", config.intermediate_size},
                                                        {"projection_dim", config.projection_dim},
                                                        {"num_hidden_layers", config.num_hidden_layers},
                                                        {"num_attention_heads", config.num_attention_heads},
                                                        {"image_size", config.image_size},
                                                        {"patch_size", config.patch_size}};
  for (const auto& [name, size] : sizes) {
    if (size < 1 || size > 1 << 20) throw input_error(where, ": `", name, "` is ", size, ", expected 1 to ", 1 << 20);
  }
  if (config.hidden_size % config.num_attention_heads != 0) {
    throw input_error(where, ": hidden_size ", config.hidden_size, " is not a multiple of num_attention_heads ",
                      config.num_attention_heads);
  }
  if (config.patch_size > config.image_size) {
    throw input_error(where, ": patch_size ", config.patch_size, " is larger than image_size ", config.image_size);
  }
  if (config.num_channels != 1 && config.num_channels != 3) {
    throw input_error(where, ": `num_channels` is ", config.num_channels, ", expected 1 or 3");
  }
  if (config.hidden_act != "quick_gelu" && config.hidden_act != "gelu") {
    throw input_error(where, ": `hidden_act` ", config.hidden_act, " is not supported; expected quick_gelu or gelu");
  }
}

bool of_text_half(const std::string& name) {
  return name.starts_with("text_model.") || name.starts_with("text_projection.");
}

// Old files hold a constant table beside the weights.
TensorMap vision_weights(const TensorMap& weights) {
  TensorMap kept;
  for (const auto& [name, tensor] : weights) {
    if (!of_text_half(name) && !name.ends_with(".position_ids")) kept.emplace(name, tensor);
  }
  return kept;
}

at::Tensor unit_rows(const at::Tensor& rows, const std::string& what) {
  const at::Tensor unit = (rows / rows.square().sum(-1, true).sqrt()).to(at::kCPU);
  const at::Tensor bad = (~at::isfinite(unit).all(-1)).nonzero();
  if (bad.numel() > 0) {
    throw non_finite_error(what, ": ", bad.size(0), " of ", unit.size(0),
                           " embeddings are NaN or Inf, the first of them ", bad[0][0].item<std::int64_t>());
  }
  return unit;
}

template <typename Embed>
at::Tensor in_batches(std::int64_t count, const Embed& embed) {
  std::vector<at::Tensor> parts;
  for (std::int64_t from = 0; from < count; from += kBatch)
    parts.push_back(embed(from, std::min(count, from + kBatch)));
  return at::cat(parts);
}

}  // namespace

struct ClipModel::Parts {
  std::string where;
  ClipVisionConfig config;
  Preprocess preprocess;
  diffusion::Tokenizer tokenizer;
  std::shared_ptr<VisionHalf> vision;
  diffusion::ClipTextModel text;
  c10::Device device;
};

ClipVisionConfig clip_vision_config(const Json& whole, const std::string& where) {
  const Json config = without_legacy_sections(whole);
  ObjectReader top(config, where);
  const auto type = top.get<std::string>("model_type", "");
  if (type != "clip") throw input_error(where, ": expected model_type clip (a CLIPModel), got `", type, "`");
  static const Json empty = Json::object();
  ObjectReader in(top.has("vision_config") ? top.raw("vision_config") : empty, where + ": `vision_config`");
  ClipVisionConfig out;
  out.projection_dim = top.get("projection_dim", out.projection_dim);
  out.hidden_size = in.get("hidden_size", out.hidden_size);
  out.intermediate_size = in.get("intermediate_size", out.intermediate_size);
  out.num_hidden_layers = in.get("num_hidden_layers", out.num_hidden_layers);
  out.num_attention_heads = in.get("num_attention_heads", out.num_attention_heads);
  out.num_channels = in.get("num_channels", out.num_channels);
  out.image_size = square_side(in, "image_size", out.image_size);
  out.patch_size = square_side(in, "patch_size", out.patch_size);
  out.hidden_act = in.get("hidden_act", out.hidden_act);
  out.layer_norm_eps = in.get("layer_norm_eps", out.layer_norm_eps);
  check(out, in.where());
  return out;
}

ClipModel ClipModel::load(const fs::path& folder, c10::Device device) {
  const fs::path config_path = folder / "config.json";
  const Json config = without_legacy_sections(read_json(config_path));
  const ClipVisionConfig vision_config = clip_vision_config(config, config_path.string());
  const TensorMap weights = runtime::read_weight_files(folder, "model");
  const std::string where = folder.string();
  const auto vision = std::make_shared<VisionHalf>(vision_config);
  diffusion::load_module(*vision, vision_weights(weights), where);
  auto text = diffusion::make_text_model(diffusion::clip_text_config(config, config_path.string()), weights, where);
  vision->to(device);
  text->to(device);
  return ClipModel(std::make_shared<const Parts>(
      Parts{where, vision_config, read_preprocess(folder), diffusion::Tokenizer::load(folder), vision, text, device}));
}

at::Tensor ClipModel::image_embeds(const std::vector<at::Tensor>& pictures) const {
  const c10::InferenceMode guard;
  if (pictures.empty()) throw input_error(parts_->where, ": no pictures to embed");
  const std::int64_t side = parts_->config.image_size;
  const auto embed = [&](std::int64_t from, std::int64_t to) {
    const std::vector<at::Tensor> part(pictures.begin() + from, pictures.begin() + to);
    const at::Tensor pixels = prepare_batch(part, parts_->preprocess, parts_->config.num_channels);
    if (pixels.size(2) != side || pixels.size(3) != side) {
      throw input_error(parts_->where, ": preprocessor_config.json makes pictures ",
                        size_text({pixels.size(2), pixels.size(3)}), ", the vision tower takes ", side, "x", side);
    }
    return parts_->vision->forward(pixels.to(parts_->device));
  };
  return unit_rows(in_batches(static_cast<std::int64_t>(pictures.size()), embed), parts_->where + ": pictures");
}

at::Tensor ClipModel::image_embeds(const at::Tensor& pictures) const {
  TORCH_CHECK(pictures.dim() == 4, "image_embeds: expected U8 [N, H, W, C], got ", pictures.dim(), " dimensions");
  return image_embeds(pictures.unbind(0));
}

at::Tensor ClipModel::text_embeds(const std::vector<std::string>& texts) const {
  const c10::InferenceMode guard;
  if (texts.empty()) throw input_error(parts_->where, ": no texts to embed");
  const auto embed = [&](std::int64_t from, std::int64_t to) {
    const std::vector<std::string> part(texts.begin() + from, texts.begin() + to);
    auto text = parts_->text;  // a module holder: the call below is not const
    return text->forward(diffusion::encode_batch(parts_->tokenizer, part, 0).to(parts_->device)).text_embeds;
  };
  return unit_rows(in_batches(static_cast<std::int64_t>(texts.size()), embed), parts_->where + ": texts");
}

double ClipModel::logit_scale() const { return parts_->vision->logit_scale(); }
const Preprocess& ClipModel::preprocess() const { return parts_->preprocess; }
const ClipVisionConfig& ClipModel::vision_config() const { return parts_->config; }

}  // namespace laptopdiff::metrics
