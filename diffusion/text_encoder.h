// The CLIP text tower of Stable Diffusion and of CLIP-like scorers.
//
// Letters: B batch, T tokens, D width, P projection width.
// Source: Radford et al., "Learning transferable visual models from natural language supervision", 2021;
// names and defaults are those of transformers.
#pragma once

#include <ATen/core/Tensor.h>
#include <torch/nn/module.h>
#include <torch/nn/pimpl.h>

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "diffusion/layers.h"
#include "diffusion/tokenizer.h"
#include "runtime/json.h"
#include "runtime/tensors.h"

namespace laptopdiff::diffusion {

// The fields of a transformers CLIPTextConfig that change the maths, with its defaults.
struct ClipTextConfig {
  std::int64_t vocab_size = 49408;
  std::int64_t hidden_size = 512;
  std::int64_t intermediate_size = 2048;
  std::int64_t projection_dim = 512;
  std::int64_t num_hidden_layers = 12;
  std::int64_t num_attention_heads = 8;
  std::int64_t max_position_embeddings = 77;
  std::string hidden_act = "quick_gelu";  // or "gelu" (the erf form)
  double layer_norm_eps = 1e-5;
  std::int64_t eos_token_id = 49407;
  bool has_projection = false;  // CLIPTextModelWithProjection, CLIPModel

  bool operator==(const ClipTextConfig&) const = default;
};

// From the config.json of a CLIPTextModel or CLIPTextModelWithProjection, or of a CLIPModel (its `text_config`).
// Throws Error(bad_input) for other model types, unknown activations and impossible sizes.
ClipTextConfig clip_text_config(const runtime::Json& config, const std::string& where);

// x sigmoid(1.702 x) for "quick_gelu", the erf form for "gelu".
at::Tensor activate(const at::Tensor& x, const std::string& hidden_act);

// One pre-norm block: x + attention(norm(x)), then x + mlp(norm(x)). Also the block of the vision tower.
struct ClipBlockShape {
  std::int64_t width = 0, heads = 0, mlp = 0;
  std::string hidden_act;
  double layer_norm_eps = 1e-5;
};
enum class Attend { all, causal };

class ClipAttentionImpl : public torch::nn::Module {
 public:
  explicit ClipAttentionImpl(const ClipBlockShape& shape);
  at::Tensor forward(const at::Tensor& x, Attend attend);  // [B, T, D] -> [B, T, D]

 private:
  std::int64_t heads_;
  Linear q_proj_, k_proj_, v_proj_, out_proj_;
};
TORCH_MODULE(ClipAttention);

class ClipMlpImpl : public torch::nn::Module {
 public:
  explicit ClipMlpImpl(const ClipBlockShape& shape);
  at::Tensor forward(const at::Tensor& x);

 private:
  std::string hidden_act_;
  Linear fc1_, fc2_;
};
TORCH_MODULE(ClipMlp);

class ClipBlockImpl : public torch::nn::Module {
 public:
  explicit ClipBlockImpl(const ClipBlockShape& shape);
  at::Tensor forward(const at::Tensor& x, Attend attend);  // [B, T, D] -> [B, T, D]

 private:
  LayerNorm layer_norm1_, layer_norm2_;
  ClipAttention self_attn_;
  ClipMlp mlp_;
};
TORCH_MODULE(ClipBlock);

// `layers.0 ... layers.N-1`, applied in order; the input and every block's output are returned.
class ClipEncoderImpl : public torch::nn::Module {
 public:
  ClipEncoderImpl(const ClipBlockShape& shape, std::int64_t layers);
  std::vector<at::Tensor> forward(const at::Tensor& x, Attend attend);  // layers + 1 tensors [B, T, D]

 private:
  std::vector<ClipBlock> blocks_;
};
TORCH_MODULE(ClipEncoder);

struct TextOutput {
  at::Tensor last_hidden_state;           // after the final layer norm [B, T, D]
  std::vector<at::Tensor> hidden_states;  // embeddings, then each block's output, without the final norm
  at::Tensor pooled;                      // last_hidden_state at the end token [B, D]
  at::Tensor text_embeds;                 // pooled through the projection [B, P]; undefined without one
};

class ClipTextModelImpl : public torch::nn::Module {
 public:
  explicit ClipTextModelImpl(const ClipTextConfig& config);
  // ids [B, T] int64, T <= max_position_embeddings, every id in the vocabulary. Throws Error(bad_input) otherwise.
  TextOutput forward(const at::Tensor& ids);
  // A hidden state [B, T, D] through the final layer norm.
  at::Tensor final_norm(const at::Tensor& state) { return final_layer_norm_(state); }
  const ClipTextConfig& config() const { return config_; }

 private:
  ClipTextConfig config_;
  Embedding token_embedding_ = nullptr, position_embedding_ = nullptr;
  ClipEncoder encoder_ = nullptr;
  LayerNorm final_layer_norm_ = nullptr;
  Linear text_projection_ = nullptr;
};
TORCH_MODULE(ClipTextModel);

// The model with the given weights in f32. Both key layouts are read (with and without `text_model.`), position_ids
// are ignored, and so is the vision half of a CLIPModel.
// Throws Error(bad_input) that lists all missing, unexpected and wrongly shaped tensors at once, or names one that is
// there in both layouts.
ClipTextModel make_text_model(const ClipTextConfig& config, const runtime::TensorMap& weights,
                              const std::string& where);

// config.json + model.safetensors of a folder.
ClipTextModel load_text_model(const std::filesystem::path& folder, const std::string& variant = "");

// Throws where load_text_model would for the config, names and shapes. Reads no weight.
void check_text_model(const std::filesystem::path& folder, const std::string& variant = "");

// Framed and padded ids of many texts: [N, max_length] int64. `pad` as in Tokenizer::encode.
at::Tensor encode_batch(const Tokenizer& tokenizer, const std::vector<std::string>& texts,
                        std::optional<std::int64_t> pad = std::nullopt);

}  // namespace laptopdiff::diffusion
