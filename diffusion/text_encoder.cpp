#include "diffusion/text_encoder.h"

#include <torch/nn/module.h>
#include <torch/nn/modules/container/modulelist.h>
#include <torch/types.h>

#include <cmath>

#include "diffusion/component.h"
#include "runtime/error.h"
#include "runtime/weight_files.h"

namespace laptopdiff::diffusion {
using runtime::input_error;
using runtime::Json;
using runtime::TensorMap;

namespace {

void check_sizes(const ClipTextConfig& c, const std::string& where) {
  const std::pair<const char*, std::int64_t> sizes[] = {{"vocab_size", c.vocab_size},
                                                        {"hidden_size", c.hidden_size},
                                                        {"intermediate_size", c.intermediate_size},
                                                        {"num_hidden_layers", c.num_hidden_layers},
                                                        {"num_attention_heads", c.num_attention_heads},
                                                        {"max_position_embeddings", c.max_position_embeddings},
                                                        {"projection_dim", c.projection_dim}};
  for (const auto& [name, size] : sizes) {
    if (size < 1 || size > (1 << 24)) throw input_error(where, ": `", name, "` is ", size, ", expected at least 1");
  }
  if (c.hidden_size % c.num_attention_heads != 0) {
    throw input_error(where, ": `hidden_size` ", c.hidden_size, " is not a multiple of `num_attention_heads` ",
                      c.num_attention_heads);
  }
  if (!(c.layer_norm_eps > 0)) throw input_error(where, ": `layer_norm_eps` must be above 0");
}

// Which family of classes a config is for, by `architectures` where it is given, else by `model_type`.
bool has_projection(runtime::ObjectReader& in) {
  const std::string& where = in.where();
  const auto type = in.get<std::string>("model_type", "clip_text_model");
  if (type == "clip") return true;
  if (type != "clip_text_model") {
    throw input_error(where, ": `model_type` \"", type, "\" is not supported; expected clip_text_model or clip");
  }
  const auto classes = in.get<std::vector<std::string>>("architectures", {});
  if (classes.empty()) return false;
  const std::string& name = classes.front();
  if (name != "CLIPTextModel" && name != "CLIPTextModelWithProjection" && name != "CLIPModel") {
    throw input_error(where, ": `architectures` says ", name,
                      "; expected CLIPTextModel, CLIPTextModelWithProjection or CLIPModel");
  }
  return name != "CLIPTextModel";
}

std::string without_prefix(const std::string& name, const std::string& prefix) {
  return name.rfind(prefix, 0) == 0 ? name.substr(prefix.size()) : name;
}

bool is_ignored(const std::string& name) {
  return name.rfind("vision_model.", 0) == 0 || name == "visual_projection.weight" || name == "logit_scale" ||
         name == "embeddings.position_ids";
}

}  // namespace

ClipTextConfig clip_text_config(const Json& config, const std::string& where) {
  runtime::ObjectReader outer(config, where);
  ClipTextConfig c;
  c.has_projection = has_projection(outer);
  const bool nested = outer.get<std::string>("model_type", "") == "clip" && outer.has("text_config");
  runtime::ObjectReader in(nested ? outer.raw("text_config") : config, where);
  c.vocab_size = in.get("vocab_size", c.vocab_size);
  c.hidden_size = in.get("hidden_size", c.hidden_size);
  c.intermediate_size = in.get("intermediate_size", c.intermediate_size);
  c.num_hidden_layers = in.get("num_hidden_layers", c.num_hidden_layers);
  c.num_attention_heads = in.get("num_attention_heads", c.num_attention_heads);
  c.max_position_embeddings = in.get("max_position_embeddings", c.max_position_embeddings);
  c.hidden_act = in.get("hidden_act", c.hidden_act);
  c.layer_norm_eps = in.get("layer_norm_eps", c.layer_norm_eps);
  c.eos_token_id = in.get("eos_token_id", c.eos_token_id);
  // A CLIPModel takes the width of its projections from the outer config.
  c.projection_dim = outer.get("projection_dim", c.projection_dim);
  if (in.get("use_attention_mask", false)) throw input_error(where, ": `use_attention_mask` is not supported");
  if (c.hidden_act != "quick_gelu" && c.hidden_act != "gelu") {
    throw input_error(where, ": `hidden_act` \"", c.hidden_act, "\" is not supported; expected quick_gelu or gelu");
  }
  check_sizes(c, where);
  return c;
}

at::Tensor activate(const at::Tensor& x, const std::string& hidden_act) {
  if (hidden_act == "quick_gelu") return x * at::sigmoid(1.702 * x);
  return at::gelu(x);
}

ClipAttentionImpl::ClipAttentionImpl(const ClipBlockShape& shape)
    : heads_(shape.heads),
      q_proj_(register_module("q_proj", Linear(shape.width, shape.width))),
      k_proj_(register_module("k_proj", Linear(shape.width, shape.width))),
      v_proj_(register_module("v_proj", Linear(shape.width, shape.width))),
      out_proj_(register_module("out_proj", Linear(shape.width, shape.width))) {}

at::Tensor ClipAttentionImpl::forward(const at::Tensor& x, Attend attend) {
  const auto batch = x.size(0), tokens = x.size(1), width = x.size(2);
  const auto by_head = [&](const at::Tensor& y) {
    return y.view({batch, tokens, heads_, width / heads_}).transpose(1, 2);  // [B, heads, T, D / heads]
  };
  const at::Tensor mixed =
      at::scaled_dot_product_attention(by_head(q_proj_(x)), by_head(k_proj_(x)), by_head(v_proj_(x)),
                                       /*attn_mask=*/{}, /*dropout_p=*/0.0, /*is_causal=*/attend == Attend::causal);
  return out_proj_(mixed.transpose(1, 2).reshape({batch, tokens, width}));
}

ClipMlpImpl::ClipMlpImpl(const ClipBlockShape& shape)
    : hidden_act_(shape.hidden_act),
      fc1_(register_module("fc1", Linear(shape.width, shape.mlp))),
      fc2_(register_module("fc2", Linear(shape.mlp, shape.width))) {}

at::Tensor ClipMlpImpl::forward(const at::Tensor& x) { return fc2_(activate(fc1_(x), hidden_act_)); }

ClipBlockImpl::ClipBlockImpl(const ClipBlockShape& shape)
    : layer_norm1_(register_module("layer_norm1", LayerNorm(shape.width, shape.layer_norm_eps))),
      layer_norm2_(register_module("layer_norm2", LayerNorm(shape.width, shape.layer_norm_eps))),
      self_attn_(register_module("self_attn", ClipAttention(shape))),
      mlp_(register_module("mlp", ClipMlp(shape))) {}

at::Tensor ClipBlockImpl::forward(const at::Tensor& x, Attend attend) {
  const at::Tensor attended = x + self_attn_(layer_norm1_(x), attend);
  return attended + mlp_(layer_norm2_(attended));
}

ClipEncoderImpl::ClipEncoderImpl(const ClipBlockShape& shape, std::int64_t layers) {
  torch::nn::ModuleList list;
  for (std::int64_t i = 0; i < layers; ++i) {
    blocks_.emplace_back(shape);
    list->push_back(blocks_.back());
  }
  register_module("layers", list);
}

std::vector<at::Tensor> ClipEncoderImpl::forward(const at::Tensor& x, Attend attend) {
  std::vector<at::Tensor> states{x};
  for (auto& block : blocks_) states.push_back(block(states.back(), attend));
  return states;
}

ClipTextModelImpl::ClipTextModelImpl(const ClipTextConfig& config) : config_(config) {
  auto embeddings = std::make_shared<torch::nn::Module>();
  token_embedding_ = embeddings->register_module("token_embedding", Embedding(config.vocab_size, config.hidden_size));
  position_embedding_ =
      embeddings->register_module("position_embedding", Embedding(config.max_position_embeddings, config.hidden_size));
  register_module("embeddings", embeddings);
  const ClipBlockShape shape{config.hidden_size, config.num_attention_heads, config.intermediate_size,
                             config.hidden_act, config.layer_norm_eps};
  encoder_ = register_module("encoder", ClipEncoder(shape, config.num_hidden_layers));
  final_layer_norm_ = register_module("final_layer_norm", LayerNorm(config.hidden_size, config.layer_norm_eps));
  if (config.has_projection) {
    text_projection_ =
        register_module("text_projection", Linear(config.hidden_size, config.projection_dim, Bias::without));
  }
}

namespace {

void check_ids(const at::Tensor& ids, const ClipTextConfig& config) {
  TORCH_CHECK(ids.dim() == 2 && ids.scalar_type() == at::kLong, "text encoder: ids must be [B, T] int64, got ",
              ids.sizes(), " ", ids.scalar_type());
  if (ids.size(1) > config.max_position_embeddings) {
    throw input_error("text encoder: ", ids.size(1), " tokens, but it has ", config.max_position_embeddings,
                      " positions; does the tokenizer belong to this encoder?");
  }
  if (ids.numel() == 0) return;
  const auto lowest = ids.min().item<std::int64_t>(), highest = ids.max().item<std::int64_t>();
  if (lowest < 0 || highest >= config.vocab_size) {
    throw input_error("text encoder: token id ", lowest < 0 ? lowest : highest, " is outside its vocabulary of ",
                      config.vocab_size, "; does the tokenizer belong to this encoder?");
  }
}

// Where the sequence ends: the first end token, or, in configs from before it was recorded (id 2), the highest id.
at::Tensor end_positions(const at::Tensor& ids, std::int64_t eos_token_id) {
  constexpr std::int64_t kLegacyId = 2;
  if (eos_token_id == kLegacyId) return ids.argmax(-1);
  return (ids == eos_token_id).to(at::kInt).argmax(-1);
}

}  // namespace

TextOutput ClipTextModelImpl::forward(const at::Tensor& ids) {
  check_ids(ids, config_);
  const at::Tensor positions = at::arange(ids.size(1), ids.options());
  const at::Tensor embedded = token_embedding_(ids) + position_embedding_(positions);  // [B, T, D]
  TextOutput out;
  out.hidden_states = encoder_(embedded, Attend::causal);
  out.last_hidden_state = final_layer_norm_(out.hidden_states.back());
  const at::Tensor rows = at::arange(ids.size(0), ids.options());
  out.pooled = out.last_hidden_state.index({rows, end_positions(ids, config_.eos_token_id)});
  if (text_projection_) out.text_embeds = text_projection_(out.pooled);
  return out;
}

namespace {

// The model's own names; a tensor in both layouts could be either.
TensorMap plain_names(const TensorMap& weights, const std::string& where) {
  TensorMap named;
  for (const auto& [name, tensor] : weights) {
    const std::string plain = without_prefix(name, "text_model.");
    if (is_ignored(plain)) continue;
    if (!named.emplace(plain, tensor).second)
      throw input_error(where, ": holds ", plain, " and text_model.", plain, ", which are one tensor");
  }
  return named;
}

ClipTextConfig config_of(const std::filesystem::path& folder) {
  const auto path = folder / "config.json";
  return clip_text_config(runtime::read_json(path), path.string());
}

}  // namespace

ClipTextModel make_text_model(const ClipTextConfig& config, const TensorMap& weights, const std::string& where) {
  ClipTextModel model(config);
  load_module(*model, plain_names(weights, where), where);
  model->eval();
  for (auto& parameter : model->parameters()) parameter.set_requires_grad(false);
  return model;
}

ClipTextModel load_text_model(const std::filesystem::path& folder, const std::string& variant) {
  return make_text_model(config_of(folder), runtime::read_preferred_weight_files(folder, "model", variant),
                         folder.string());
}

void check_text_model(const std::filesystem::path& folder, const std::string& variant) {
  const TensorMap weights = runtime::read_preferred_weight_files(folder, "model", variant);
  check_module(*ClipTextModel(config_of(folder)), plain_names(weights, folder.string()), folder.string());
}

at::Tensor encode_batch(const Tokenizer& tokenizer, const std::vector<std::string>& texts,
                        std::optional<std::int64_t> pad) {
  const auto count = static_cast<std::int64_t>(texts.size());
  at::Tensor out = at::empty({count, tokenizer.max_length()}, at::kLong);
  for (std::int64_t i = 0; i < count; ++i) {
    const auto ids = tokenizer.encode(texts[static_cast<std::size_t>(i)], pad);
    std::copy(ids.begin(), ids.end(), out.data_ptr<std::int64_t>() + i * tokenizer.max_length());
  }
  return out;
}

}  // namespace laptopdiff::diffusion
