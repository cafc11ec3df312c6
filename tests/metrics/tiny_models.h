// Folders of models small enough to make in a test: a CLIPModel and a ResNet classifier with random weights.
#pragma once

#include <torch/types.h>

#include <filesystem>
#include <string>

#include "runtime/json.h"
#include "runtime/random.h"
#include "runtime/tensors.h"
#include "tests/support/temporary_folder.h"

namespace laptopdiff::test {

using Shapes = std::map<std::string, std::vector<std::int64_t>>;

// Normal values, but for variances, which must be positive.
inline runtime::TensorMap random_weights(const Shapes& shapes, std::uint64_t seed) {
  runtime::TensorMap weights;
  std::uint64_t index = 0;
  for (const auto& [name, shape] : shapes) {
    at::Tensor tensor = at::empty(shape);
    runtime::Stream(seed, runtime::Purpose::test, 0, index++)
        .fill_normal({tensor.mutable_data_ptr<float>(), static_cast<std::size_t>(tensor.numel())});
    weights[name] = name.ends_with("running_var") ? tensor.abs() + 0.5 : 0.5 * tensor;
  }
  return weights;
}

// One block of width 4 under `prefix`, as both towers have it.
inline void add_clip_block(const std::string& prefix, Shapes& shapes) {
  for (const char* name : {"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.out_proj"}) {
    shapes[prefix + name + ".weight"] = {4, 4};
    shapes[prefix + name + ".bias"] = {4};
  }
  for (const char* name : {"layer_norm1", "layer_norm2"}) {
    shapes[prefix + name + ".weight"] = shapes[prefix + name + ".bias"] = {4};
  }
  shapes[prefix + "mlp.fc1.weight"] = {6, 4};
  shapes[prefix + "mlp.fc1.bias"] = {6};
  shapes[prefix + "mlp.fc2.weight"] = {4, 6};
  shapes[prefix + "mlp.fc2.bias"] = {4};
}

// 4x4 pictures in patches of 2, texts of at most 8 tokens over the letters a, b; width 4, two heads, one block a tower.
inline runtime::TensorMap clip_weights(std::uint64_t seed = 1) {
  Shapes shapes{{"logit_scale", {}},
                {"visual_projection.weight", {3, 4}},
                {"text_projection.weight", {3, 4}},
                {"vision_model.embeddings.class_embedding", {4}},
                {"vision_model.embeddings.patch_embedding.weight", {4, 3, 2, 2}},
                {"vision_model.embeddings.position_embedding.weight", {5, 4}},
                {"text_model.embeddings.token_embedding.weight", {6, 4}},
                {"text_model.embeddings.position_embedding.weight", {8, 4}}};
  for (const char* name : {"vision_model.pre_layrnorm", "vision_model.post_layernorm", "text_model.final_layer_norm"}) {
    shapes[std::string(name) + ".weight"] = shapes[std::string(name) + ".bias"] = {4};
  }
  add_clip_block("vision_model.encoder.layers.0.", shapes);
  add_clip_block("text_model.encoder.layers.0.", shapes);
  return random_weights(shapes, seed);
}

inline runtime::Json clip_config() {
  const runtime::Json tower{
      {"hidden_size", 4}, {"intermediate_size", 6}, {"num_hidden_layers", 1}, {"num_attention_heads", 2}};
  runtime::Json config{{"model_type", "clip"}, {"projection_dim", 3}, {"text_config", tower}, {"vision_config", tower}};
  config["text_config"].update({{"vocab_size", 6}, {"max_position_embeddings", 8}, {"eos_token_id", 5}});
  config["vision_config"].update({{"image_size", 4}, {"patch_size", 2}});
  return config;
}

inline runtime::Json square_preprocess(std::int64_t side) {
  return {{"size", {{"height", side}, {"width", side}}}, {"resample", 2}, {"image_mean", 0.5}, {"image_std", 0.5}};
}

inline void write_json_file(const std::filesystem::path& path, const runtime::Json& json) {
  put_bytes(path, json.dump());
}

inline void put_clip(const std::filesystem::path& folder, std::uint64_t seed = 1) {
  std::filesystem::create_directories(folder);
  write_json_file(folder / "config.json", clip_config());
  write_json_file(folder / "preprocessor_config.json", square_preprocess(4));
  write_json_file(folder / "vocab.json",
                  {{"a", 0}, {"a</w>", 1}, {"b", 2}, {"b</w>", 3}, {"<|startoftext|>", 4}, {"<|endoftext|>", 5}});
  put_bytes(folder / "merges.txt", "#version: 0.2\n");
  write_json_file(folder / "tokenizer_config.json", {{"model_max_length", 8},
                                                     {"bos_token", "<|startoftext|>"},
                                                     {"eos_token", "<|endoftext|>"},
                                                     {"unk_token", "<|endoftext|>"},
                                                     {"pad_token", "<|endoftext|>"}});
  runtime::write_tensors(folder / "model.safetensors", clip_weights(seed));
}

// 8x8 pictures, one stage of one basic layer of width 2, classes bag, shirt and shoe.
inline runtime::TensorMap classifier_weights() {
  Shapes shapes{{"classifier.1.weight", {3, 2}}, {"classifier.1.bias", {3}}};
  const std::string layer = "resnet.encoder.stages.0.layers.0.layer.";
  const std::map<std::string, std::vector<std::int64_t>> convolutions{
      {"resnet.embedder.embedder.", {2, 3, 7, 7}}, {layer + "0.", {2, 2, 3, 3}}, {layer + "1.", {2, 2, 3, 3}}};
  for (const auto& [prefix, shape] : convolutions) {
    shapes[prefix + "convolution.weight"] = shape;
    for (const char* name : {"weight", "bias", "running_mean", "running_var"}) {
      shapes[prefix + "normalization." + name] = {2};
    }
  }
  return random_weights(shapes, 2);
}

inline runtime::Json classifier_config() {
  return {{"model_type", "resnet"}, {"embedding_size", 2},
          {"hidden_sizes", {2}},    {"depths", {1}},
          {"layer_type", "basic"},  {"id2label", {{"0", "bag"}, {"1", "shirt"}, {"2", "shoe"}}}};
}

inline void put_classifier(const std::filesystem::path& folder) {
  std::filesystem::create_directories(folder);
  write_json_file(folder / "config.json", classifier_config());
  write_json_file(folder / "preprocessor_config.json", square_preprocess(8));
  runtime::write_tensors(folder / "model.safetensors", classifier_weights());
}

// U8 [count, side, side, channels], the same for the same arguments.
inline at::Tensor noise_pictures(std::int64_t count, std::int64_t side, std::int64_t channels, std::uint64_t seed = 3) {
  const auto generator = at::make_generator<at::CPUGeneratorImpl>(seed);
  return at::randint(0, 256, {count, side, side, channels}, generator, at::kByte);
}

// F64 [count, width], standard normal.
inline at::Tensor noise_features(std::int64_t count, std::int64_t width, std::uint64_t seed) {
  return at::randn({count, width}, at::make_generator<at::CPUGeneratorImpl>(seed), at::kDouble);
}

}  // namespace laptopdiff::test
