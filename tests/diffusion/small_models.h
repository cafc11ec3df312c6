// Tokenizers and networks small enough to work out by hand or to run in a blink.
#pragma once

#include <torch/nn/module.h>
#include <torch/nn/modules/container/modulelist.h>
#include <torch/types.h>

#include <filesystem>
#include <string>
#include <vector>

#include "diffusion/byte_pairs.h"
#include "diffusion/text_encoder.h"
#include "diffusion/vae.h"
#include "runtime/json.h"
#include "runtime/tensors.h"
#include "tests/support/temporary_folder.h"

namespace laptopdiff::diffusion::test {

using laptopdiff::test::put_bytes;
using laptopdiff::test::TemporaryFolder;
using runtime::Json;

// The 512 byte symbols (inside a word, at its end), then each merge's result, then start and end token.
struct SmallTokenizer {
  std::vector<std::pair<std::string, std::string>> merges = {{"c", "a"}, {"ca", "t</w>"}, {"a", "t</w>"},
                                                             {"t", "h"}, {"th", "e</w>"}, {"o", "o"}};
  std::int64_t start = 512 + 6, end = 512 + 7;

  Json vocabulary() const {
    Json out = Json::object();
    for (std::size_t b = 0; b < 256; ++b) {
      out[byte_symbols()[b]] = b;
      out[byte_symbols()[b] + "</w>"] = 256 + b;
    }
    for (std::size_t i = 0; i < merges.size(); ++i) out[merges[i].first + merges[i].second] = 512 + i;
    out["<|startoftext|>"] = start;
    out["<|endoftext|>"] = end;
    return out;
  }
  std::string merges_text() const {
    std::string out = "#version: 0.2\n";
    for (const auto& [left, right] : merges) out += left + " " + right + "\n";
    return out;
  }
  void write(const std::filesystem::path& folder, const Json& config = {{"model_max_length", 8}}) const {
    std::filesystem::create_directories(folder);
    put_bytes(folder / "vocab.json", vocabulary().dump());
    put_bytes(folder / "merges.txt", merges_text());
    put_bytes(folder / "tokenizer_config.json", config.dump());
  }
  // The one file that transformers 5 writes.
  Json tokenizer_json() const {
    Json list = Json::array();
    for (const auto& [left, right] : merges) list.push_back({left, right});
    return {{"model",
             {{"type", "BPE"},
              {"vocab", vocabulary()},
              {"merges", list},
              {"end_of_word_suffix", "</w>"},
              {"unk_token", "<|endoftext|>"}}},
            {"added_tokens", Json::array()}};
  }
};

inline runtime::TensorMap random_weights(torch::nn::Module& module, std::uint64_t seed = 0) {
  auto generator = at::make_generator<at::CPUGeneratorImpl>(seed);
  runtime::TensorMap weights;
  for (const auto& item : module.named_parameters()) {
    const double scale = item.value().dim() > 1 ? 1 / std::sqrt(static_cast<double>(item.value()[0].numel())) : 0.1;
    weights[item.key()] = at::randn(item.value().sizes(), generator) * scale;
  }
  return weights;
}

inline ClipTextConfig small_text_config() {
  ClipTextConfig config;
  config.vocab_size = 520;
  config.hidden_size = 16;
  config.intermediate_size = 32;
  config.num_hidden_layers = 2;
  config.num_attention_heads = 2;
  config.max_position_embeddings = 8;
  config.eos_token_id = 519;
  return config;
}

inline Json small_text_json() {
  return {{"architectures", {"CLIPTextModel"}},
          {"model_type", "clip_text_model"},
          {"vocab_size", 520},
          {"hidden_size", 16},
          {"intermediate_size", 32},
          {"num_hidden_layers", 2},
          {"num_attention_heads", 2},
          {"max_position_embeddings", 8},
          {"eos_token_id", 519}};
}

inline Json small_vae_json() {
  return {{"_class_name", "AutoencoderKL"},
          {"block_out_channels", {8, 8}},
          {"norm_num_groups", 4},
          {"down_block_types", {"DownEncoderBlock2D", "DownEncoderBlock2D"}},
          {"up_block_types", {"UpDecoderBlock2D", "UpDecoderBlock2D"}},
          {"scaling_factor", 0.5}};
}

// A whole Stable Diffusion folder but for the U-Net's weights.
inline void write_pipeline(const std::filesystem::path& folder) {
  for (const char* name : {"unet", "vae", "text_encoder", "scheduler"})
    std::filesystem::create_directories(folder / name);
  SmallTokenizer().write(folder / "tokenizer");
  put_bytes(folder / "model_index.json",
            R"({"_class_name": "StableDiffusionPipeline", "unet": ["diffusers", "UNet2DConditionModel"],
                "vae": ["diffusers", "AutoencoderKL"], "text_encoder": ["transformers", "CLIPTextModel"],
                "tokenizer": ["transformers", "CLIPTokenizer"], "scheduler": ["diffusers", "PNDMScheduler"],
                "safety_checker": [null, null]})");
  put_bytes(folder / "unet" / "config.json", R"({"_class_name": "UNet2DConditionModel"})");
  put_bytes(folder / "scheduler" / "scheduler_config.json",
            R"({"_class_name": "PNDMScheduler", "skip_prk_steps": true})");
  put_bytes(folder / "text_encoder" / "config.json", small_text_json().dump());
  ClipTextModel text(small_text_config());
  runtime::write_tensors(folder / "text_encoder" / "model.safetensors", random_weights(*text));
  put_bytes(folder / "vae" / "config.json", small_vae_json().dump());
  AutoencoderKl vae(vae_config(small_vae_json(), "config.json"));
  runtime::write_tensors(folder / "vae" / "diffusion_pytorch_model.safetensors", random_weights(*vae));
}

}  // namespace laptopdiff::diffusion::test
