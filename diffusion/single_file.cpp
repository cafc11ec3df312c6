#include "diffusion/single_file.h"

#include <torch/types.h>

#include <algorithm>

#include "runtime/error.h"
#include "unet/original_names.h"
#include "unet/single_file.h"

namespace laptopdiff::diffusion {
namespace fs = std::filesystem;
using runtime::cat;
using runtime::input_error;
using runtime::Json;
using runtime::TensorMap;

namespace {

enum class Kind { sd1, sd2, sd_xl };

// Tensors that some files carry and no inference needs.
bool is_bookkeeping(std::string_view name) {
  return name == "logit_scale" || name.ends_with("position_ids") || name.ends_with("attn_mask") ||
         name.starts_with("loss.") || name.starts_with("model_ema.");
}

// The file's tensors below a prefix, without it.
class Checkpoint {
 public:
  explicit Checkpoint(const fs::path& path)
      : file_(unet::open_single_file(path)), where_(path.string()), kind_(find_kind()) {}

  TensorMap below(std::string_view prefix) const {
    TensorMap tensors;
    const auto& all = file_->tensors();
    for (auto entry = all.lower_bound(std::string(prefix)); entry != all.end(); ++entry) {
      if (!entry->first.starts_with(prefix)) break;
      const std::string name = entry->first.substr(prefix.size());
      if (!is_bookkeeping(name)) tensors[name] = runtime::view_tensor(file_, entry->second);
    }
    return tensors;
  }
  Kind kind() const { return kind_; }
  const std::string& where() const { return where_; }

 private:
  Kind find_kind() const {
    if (file_->has_below(unet::kXlText1Prefix) && file_->has_below(unet::kXlText2Prefix)) return Kind::sd_xl;
    if (file_->has_below(unet::kSd1TextPrefix)) return Kind::sd1;
    if (file_->has_below(unet::kSd2TextPrefix)) return Kind::sd2;
    throw input_error(where_, ": no text encoder of Stable Diffusion 1, 2 or XL in it (", unet::kSd1TextPrefix, ", ",
                      unet::kSd2TextPrefix, ", or ", unet::kXlText1Prefix, " and ", unet::kXlText2Prefix,
                      "); a U-Net alone is no pipeline");
  }

  std::shared_ptr<const runtime::SafetensorsFile> file_;
  std::string where_;
  Kind kind_;
};

std::int64_t size_of(const TensorMap& tensors, const std::string& name, std::int64_t dimension,
                     const std::string& where) {
  const auto found = tensors.find(name);
  if (found == tensors.end()) throw input_error(where, ": ", name, " is missing");
  if (found->second.dim() <= dimension) {
    throw input_error(where, ": ", name, " is ", runtime::sizes_text(found->second), ", which does not fit");
  }
  return found->second.size(dimension);
}

// How many of `prefix` + 0, 1, ... + `ending` there are.
std::int64_t count_numbered(const TensorMap& tensors, const std::string& prefix, const std::string& ending) {
  std::int64_t count = 0;
  while (tensors.contains(cat(prefix, count, ending))) ++count;
  return count;
}

// ---------------------------------------------------------------- text

// OpenCLIP's names and fused projections as transformers has them.
TensorMap from_open_clip(const TensorMap& tensors, const std::string& where) {
  TensorMap out;
  std::vector<std::string> unknown;
  for (const auto& [name, tensor] : tensors) {
    const std::vector<std::string> names = unet::transformers_text_names(name);
    if (names.empty()) unknown.push_back(name);
    if (name == "text_projection" && tensor.dim() != 2)
      throw input_error(where, ": ", name, " is ", runtime::sizes_text(tensor), ", expected a matrix");
    if (names.size() == 1) out[names[0]] = name == "text_projection" ? tensor.t() : tensor;
    if (names.size() != 3) continue;
    if (tensor.dim() < 1 || tensor.size(0) % 3 != 0) {
      throw input_error(where, ": ", name, " is ", runtime::sizes_text(tensor), ", expected three equal parts");
    }
    const std::vector<at::Tensor> thirds = tensor.chunk(3, 0);
    for (std::size_t i = 0; i < thirds.size(); ++i) out[names[i]] = thirds[i];
  }
  if (!unknown.empty()) {
    throw input_error(where, ": tensors that no text encoder has: ", runtime::listing(unknown));
  }
  return out;
}

void drop_layer(TensorMap& tensors, std::int64_t layer) {
  const std::string prefix = cat("text_model.encoder.layers.", layer, ".");
  std::erase_if(tensors, [&](const auto& entry) { return entry.first.starts_with(prefix); });
}

ClipTextConfig text_config(const TensorMap& tensors, bool open_clip, const std::string& where) {
  constexpr std::int64_t kHeadChannels = 64;
  constexpr std::int64_t kHighestIdEnds = 2;  // the end token is the highest id of a text
  const std::string embeddings = "text_model.embeddings.", layers = "text_model.encoder.layers.";
  ClipTextConfig config;
  config.vocab_size = size_of(tensors, embeddings + "token_embedding.weight", 0, where);
  config.hidden_size = size_of(tensors, embeddings + "token_embedding.weight", 1, where);
  config.max_position_embeddings = size_of(tensors, embeddings + "position_embedding.weight", 0, where);
  config.num_hidden_layers = count_numbered(tensors, layers, ".mlp.fc1.weight");
  config.intermediate_size = size_of(tensors, layers + "0.mlp.fc1.weight", 0, where);
  config.num_attention_heads = config.hidden_size / kHeadChannels;
  if (config.num_attention_heads * kHeadChannels != config.hidden_size) {
    throw input_error(where, ": a text encoder of width ", config.hidden_size, ", expected a multiple of ",
                      kHeadChannels);
  }
  config.hidden_act = open_clip ? "gelu" : "quick_gelu";
  config.eos_token_id = kHighestIdEnds;
  config.has_projection = tensors.contains("text_projection.weight");
  if (config.has_projection) config.projection_dim = size_of(tensors, "text_projection.weight", 0, where);
  return config;
}

ClipTextModel text_model(const TensorMap& tensors, bool open_clip, const std::string& where) {
  return make_text_model(text_config(tensors, open_clip, where), tensors, where);
}

// SD 2 is conditioned on the last state but one, normed: diffusers' encoder ends there.
ClipTextModel sd2_text_model(const Checkpoint& checkpoint) {
  TensorMap tensors = from_open_clip(checkpoint.below(unet::kSd2TextPrefix), checkpoint.where());
  tensors.erase("text_projection.weight");
  const std::int64_t layers = count_numbered(tensors, "text_model.encoder.layers.", ".mlp.fc1.weight");
  if (layers < 2) throw input_error(checkpoint.where(), ": a text encoder of ", layers, " layers, expected 24");
  drop_layer(tensors, layers - 1);
  return text_model(tensors, true, checkpoint.where());
}

std::vector<ClipTextModel> text_models(const Checkpoint& checkpoint) {
  const std::string& where = checkpoint.where();
  switch (checkpoint.kind()) {
    case Kind::sd1: return {text_model(checkpoint.below(unet::kSd1TextPrefix), false, where)};
    case Kind::sd2: return {sd2_text_model(checkpoint)};
    case Kind::sd_xl: break;
  }
  return {text_model(checkpoint.below(unet::kXlText1Prefix), false, where),
          text_model(from_open_clip(checkpoint.below(unet::kXlText2Prefix), where), true, where)};
}

// ---------------------------------------------------------------- VAE

VaeConfig vae_config_of(const TensorMap& original, Kind kind, const std::string& where) {
  Json config = {{"_class_name", "AutoencoderKL"}};
  std::vector<std::int64_t> widths;
  std::vector<std::string> down, up;
  const auto levels = count_numbered(original, "encoder.down.", ".block.0.conv1.weight");
  for (std::int64_t i = 0; i < levels; ++i) {
    widths.push_back(size_of(original, cat("encoder.down.", i, ".block.0.conv1.weight"), 0, where));
    down.emplace_back("DownEncoderBlock2D");
    up.emplace_back("UpDecoderBlock2D");
  }
  if (widths.empty()) throw input_error(where, ": no VAE in it (", unet::kVaePrefix, "...)");
  config["block_out_channels"] = widths;
  config["down_block_types"] = down;
  config["up_block_types"] = up;
  config["layers_per_block"] = count_numbered(original, "encoder.down.0.block.", ".conv1.weight");
  config["in_channels"] = size_of(original, "encoder.conv_in.weight", 1, where);
  config["out_channels"] = size_of(original, "decoder.conv_out.weight", 0, where);
  config["latent_channels"] = size_of(original, "decoder.conv_in.weight", 1, where);
  config["scaling_factor"] = kind == Kind::sd_xl ? 0.13025 : 0.18215;
  config["sample_size"] = kind == Kind::sd1 ? 512 : kind == Kind::sd2 ? 768 : 1024;
  return vae_config(config, where);
}

AutoencoderKl vae_of(const Checkpoint& checkpoint) {
  const TensorMap original = checkpoint.below(unet::kVaePrefix);
  const VaeConfig config = vae_config_of(original, checkpoint.kind(), checkpoint.where());
  const auto levels = static_cast<int>(config.block_out_channels.size());
  TensorMap tensors;
  // A name without a counterpart stays, and is then listed with whatever else does not fit.
  for (const auto& [name, tensor] : original) {
    tensors[unet::diffusers_vae_name(name, levels).value_or(cat(unet::kVaePrefix, name))] = tensor;
  }
  return make_vae(config, tensors, checkpoint.where());
}

// ---------------------------------------------------------------- the rest

void check_folder(const fs::path& folder, Kind kind, const fs::path& file) {
  std::vector<std::string> missing;
  for (const char* name : {"tokenizer", "tokenizer_2", "scheduler"}) {
    if (name == std::string("tokenizer_2") && kind != Kind::sd_xl) continue;
    if (!fs::is_directory(folder / name)) missing.push_back(cat(name, "/"));
  }
  if (missing.empty()) return;
  throw input_error(file.string(), ": a single file holds no tokenizer and no scheduler, and ",
                    folder.empty() ? "." : folder.string(), " has no ", runtime::join(missing, " and no "),
                    "; give --pipeline-config a diffusers folder of the same family (its weights are not needed)");
}

}  // namespace

Pipeline load_single_file(const fs::path& file, const fs::path& config_folder, Parts parts) {
  const Checkpoint checkpoint(file);
  const bool is_xl = checkpoint.kind() == Kind::sd_xl;
  check_folder(config_folder, checkpoint.kind(), file);
  Pipeline pipeline;
  pipeline.folder = pipeline.unet_folder = file;
  pipeline.class_name = is_xl ? "StableDiffusionXLPipeline" : "StableDiffusionPipeline";
  pipeline.unet_class = "UNet2DConditionModel";
  pipeline.scheduler_config = read_scheduler_config(config_folder / "scheduler" / "scheduler_config.json");
  pipeline.zeros_for_empty_prompt = is_xl;
  if (const fs::path index = config_folder / "model_index.json"; is_xl && fs::exists(index)) {
    const Json json = runtime::read_json(index);
    pipeline.zeros_for_empty_prompt =
        runtime::ObjectReader(json, index.string()).get("force_zeros_for_empty_prompt", true);
  }
  if (parts == Parts::config_only) return pipeline;
  if (!is_xl) overrule_outdated(pipeline.scheduler_config, (config_folder / "scheduler").string());
  const char* const tokenizers[] = {"tokenizer", "tokenizer_2"};
  std::vector<ClipTextModel> models = text_models(checkpoint);
  for (std::size_t i = 0; i < models.size(); ++i) {
    pipeline.text.push_back(make_tower(config_folder / tokenizers[i], models[i], file.string()));
  }
  if (parts == Parts::all) pipeline.vae = vae_of(checkpoint);
  return pipeline;
}

}  // namespace laptopdiff::diffusion
