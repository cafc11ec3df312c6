#include "unet/original_names.h"

#include <charconv>
#include <span>

namespace laptopdiff::unet {
namespace {

using Parts = std::vector<std::string_view>;

constexpr int kLayers = 2;            // of a full down stage
constexpr int kStride = kLayers + 1;  // of a stage in input_blocks and output_blocks
constexpr int kMaxIndex = 9999;

// A module's name in diffusers and in the original files.
struct Row {
  std::string_view diffusers, original;
};

constexpr Row kUNetTop[] = {
    {"time_embedding.linear_1", "time_embed.0"},
    {"time_embedding.linear_2", "time_embed.2"},
    {"time_embedding.cond_proj", "time_embed.cond_proj"},
    {"add_embedding.linear_1", "label_emb.0.0"},
    {"add_embedding.linear_2", "label_emb.0.2"},
    {"conv_in", "input_blocks.0.0"},
    {"conv_norm_out", "out.0"},
    {"conv_out", "out.2"},
};
constexpr Row kMiddle[] = {
    {"resnets.0", "0"},
    {"attentions.0", "1"},
    {"resnets.1", "2"},
};
constexpr Row kUNetResnet[] = {
    {"norm1", "in_layers.0"},  {"conv1", "in_layers.2"},  {"time_emb_proj", "emb_layers.1"},
    {"norm2", "out_layers.0"}, {"conv2", "out_layers.3"}, {"conv_shortcut", "skip_connection"},
};
constexpr Row kVaeTop[] = {
    {"conv_in", "conv_in"},
    {"conv_norm_out", "norm_out"},
    {"conv_out", "conv_out"},
};
constexpr Row kVaeMiddle[] = {
    {"resnets.0", "block_1"},
    {"attentions.0", "attn_1"},
    {"resnets.1", "block_2"},
};
constexpr Row kVaeResnet[] = {
    {"norm1", "norm1"}, {"conv1", "conv1"}, {"norm2", "norm2"}, {"conv2", "conv2"}, {"conv_shortcut", "nin_shortcut"},
};
constexpr Row kVaeAttention[] = {
    {"group_norm", "norm"}, {"to_q", "q"}, {"to_k", "k"}, {"to_v", "v"}, {"to_out.0", "proj_out"},
};
constexpr Row kTextTop[] = {
    {"text_model.embeddings.token_embedding.weight", "token_embedding.weight"},
    {"text_model.embeddings.position_embedding.weight", "positional_embedding"},
    {"text_model.final_layer_norm.weight", "ln_final.weight"},
    {"text_model.final_layer_norm.bias", "ln_final.bias"},
    {"text_projection.weight", "text_projection"},
};
constexpr Row kTextLayer[] = {
    {"layer_norm1", "ln_1"},
    {"layer_norm2", "ln_2"},
    {"mlp.fc1", "mlp.c_fc"},
    {"mlp.fc2", "mlp.c_proj"},
    {"self_attn.out_proj", "attn.out_proj"},
};
constexpr std::string_view kFused[] = {"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"};

std::string dotted(std::initializer_list<std::string_view> parts) {
  std::string text;
  for (const std::string_view part : parts) {
    if (!text.empty()) text += '.';
    text += part;
  }
  return text;
}

std::optional<std::string_view> after(std::string_view name, std::string_view prefix) {
  if (!name.starts_with(prefix)) return std::nullopt;
  return name.substr(prefix.size());
}

// The rest behind a module's name and its dot.
std::optional<std::string_view> below(std::string_view name, std::string_view module) {
  const auto rest = after(name, module);
  if (!rest || !rest->starts_with('.')) return std::nullopt;
  return rest->substr(1);
}

// Takes "12" off "12.rest"; plain decimal without leading zeros, so that names map one to one.
std::optional<int> take_index(std::string_view& name) {
  const std::string_view digits = name.substr(0, name.find('.'));
  int value = 0;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value);
  const bool plain = !digits.empty() && (digits.size() == 1 || digits.front() != '0') && digits.front() != '-';
  if (error != std::errc() || end != digits.data() + digits.size() || !plain || value > kMaxIndex) return std::nullopt;
  name.remove_prefix(std::min(name.size(), digits.size() + 1));
  return value;
}

enum class To { original, diffusers };

// The name with the module of the first row that fits exchanged; nullopt where none does.
std::optional<std::string> exchange(std::span<const Row> rows, std::string_view name, To to) {
  for (const Row& row : rows) {
    const auto [from, into] =
        to == To::original ? std::pair(row.diffusers, row.original) : std::pair(row.original, row.diffusers);
    if (const auto rest = below(name, from)) return dotted({into, *rest});
  }
  return std::nullopt;
}

std::optional<std::string> with_prefix(std::string_view prefix, const std::optional<std::string>& name) {
  if (!name) return std::nullopt;
  return dotted({prefix, *name});
}

// ---------------------------------------------------------------- U-Net

// A ResNet's parts have other names; a transformer's are the same.
std::optional<std::string> layer_parts(std::string_view rest, bool is_resnet, To to) {
  if (is_resnet) return exchange(kUNetResnet, rest, to);
  return rest.empty() ? std::nullopt : std::optional(std::string(rest));
}

std::optional<std::string> original_stage(std::string_view rest, bool down, Family family) {
  const auto stage = take_index(rest);
  const std::string_view blocks = down ? "input_blocks" : "output_blocks";
  if (!stage) return std::nullopt;
  const int first = kStride * *stage + (down ? 1 : 0);
  if (const auto conv = after(rest, down ? "downsamplers.0.conv." : "upsamplers.0.conv.")) {
    if (down) return dotted({blocks, std::to_string(first + kLayers), "0.op", *conv});
    const char* slot = *stage == 0 && family == Family::sd ? "1.conv" : "2.conv";
    return dotted({blocks, std::to_string(first + kLayers), slot, *conv});
  }
  const bool is_resnet = rest.starts_with("resnets.");
  if (!is_resnet && !rest.starts_with("attentions.")) return std::nullopt;
  rest.remove_prefix(rest.find('.') + 1);
  const auto layer = take_index(rest);
  if (!layer || *layer >= (down ? kLayers : kStride)) return std::nullopt;
  return with_prefix(dotted({blocks, std::to_string(first + *layer), is_resnet ? "0" : "1"}),
                     layer_parts(rest, is_resnet, To::original));
}

std::optional<std::string> diffusers_stage(std::string_view rest, bool down) {
  const auto number = take_index(rest), slot = take_index(rest);
  if (!number || !slot || (down && *number == 0)) return std::nullopt;
  const int position = *number - (down ? 1 : 0);
  const int stage = position / kStride, layer = position % kStride;
  const std::string path = dotted({down ? "down_blocks" : "up_blocks", std::to_string(stage)});
  const auto sampler = after(rest, down ? "op." : "conv.");
  if (sampler && layer == kLayers && (down ? *slot == 0 : *slot == 1 || *slot == 2)) {
    return dotted({path, down ? "downsamplers.0.conv" : "upsamplers.0.conv", *sampler});
  }
  if (*slot > 1 || (down && layer == kLayers)) return std::nullopt;
  return with_prefix(dotted({path, *slot == 0 ? "resnets" : "attentions", std::to_string(layer)}),
                     layer_parts(rest, *slot == 0, To::diffusers));
}

// "resnets.0.conv1.weight" <-> "0.in_layers.2.weight"
std::optional<std::string> middle(std::string_view rest, To to) {
  for (const Row& row : kMiddle) {
    const auto [from, into] =
        to == To::original ? std::pair(row.diffusers, row.original) : std::pair(row.original, row.diffusers);
    if (const auto parts = below(rest, from)) {
      return with_prefix(into, layer_parts(*parts, row.diffusers.starts_with("resnets"), to));
    }
  }
  return std::nullopt;
}

// ---------------------------------------------------------------- VAE

std::optional<std::string> vae_middle(std::string_view rest, To to) {
  for (const Row& row : kVaeMiddle) {
    const auto [from, into] =
        to == To::original ? std::pair(row.diffusers, row.original) : std::pair(row.original, row.diffusers);
    const auto parts = below(rest, from);
    if (!parts) continue;
    const bool is_resnet = row.diffusers.starts_with("resnets");
    return with_prefix(into, is_resnet ? exchange(kVaeResnet, *parts, to) : exchange(kVaeAttention, *parts, to));
  }
  return std::nullopt;
}

// The decoder's stages count from the image in original files, from the latent in diffusers.
std::optional<int> vae_stage(std::string_view& rest, bool encoder, int levels) {
  const auto stage = take_index(rest);
  if (!stage || *stage >= levels) return std::nullopt;
  return encoder ? *stage : levels - 1 - *stage;
}

std::optional<std::string> original_vae_half(std::string_view rest, bool encoder, int levels) {
  if (const auto name = exchange(kVaeTop, rest, To::original)) return name;
  if (const auto parts = after(rest, "mid_block.")) return with_prefix("mid", vae_middle(*parts, To::original));
  auto inner = after(rest, encoder ? "down_blocks." : "up_blocks.");
  if (!inner) return std::nullopt;
  const auto stage = vae_stage(*inner, encoder, levels);
  if (!stage) return std::nullopt;
  const std::string path = dotted({encoder ? "down" : "up", std::to_string(*stage)});
  if (const auto conv = after(*inner, encoder ? "downsamplers.0.conv." : "upsamplers.0.conv.")) {
    return dotted({path, encoder ? "downsample.conv" : "upsample.conv", *conv});
  }
  auto resnet = after(*inner, "resnets.");
  if (!resnet) return std::nullopt;
  const auto layer = take_index(*resnet);
  if (!layer) return std::nullopt;
  return with_prefix(dotted({path, "block", std::to_string(*layer)}), exchange(kVaeResnet, *resnet, To::original));
}

std::optional<std::string> diffusers_vae_half(std::string_view rest, bool encoder, int levels) {
  if (const auto name = exchange(kVaeTop, rest, To::diffusers)) return name;
  if (const auto parts = after(rest, "mid.")) return with_prefix("mid_block", vae_middle(*parts, To::diffusers));
  auto inner = after(rest, encoder ? "down." : "up.");
  if (!inner) return std::nullopt;
  const auto stage = vae_stage(*inner, encoder, levels);
  if (!stage) return std::nullopt;
  const std::string path = dotted({encoder ? "down_blocks" : "up_blocks", std::to_string(*stage)});
  if (const auto conv = after(*inner, encoder ? "downsample.conv." : "upsample.conv.")) {
    return dotted({path, encoder ? "downsamplers.0.conv" : "upsamplers.0.conv", *conv});
  }
  auto resnet = after(*inner, "block.");
  if (!resnet) return std::nullopt;
  const auto layer = take_index(*resnet);
  if (!layer) return std::nullopt;
  return with_prefix(dotted({path, "resnets", std::to_string(*layer)}), exchange(kVaeResnet, *resnet, To::diffusers));
}

template <typename Half>
std::optional<std::string> vae_name(std::string_view name, int levels, Half half) {
  if (name.starts_with("quant_conv.") || name.starts_with("post_quant_conv.")) return std::string(name);
  if (const auto rest = after(name, "encoder.")) return with_prefix("encoder", half(*rest, true, levels));
  if (const auto rest = after(name, "decoder.")) return with_prefix("decoder", half(*rest, false, levels));
  return std::nullopt;
}

}  // namespace

std::optional<std::string> original_unet_name(std::string_view name, Family family) {
  if (name == "class_embedding.weight") return "label_emb.weight";
  if (const auto top = exchange(kUNetTop, name, To::original)) return top;
  if (const auto rest = after(name, "down_blocks.")) return original_stage(*rest, true, family);
  if (const auto rest = after(name, "up_blocks.")) return original_stage(*rest, false, family);
  if (const auto rest = after(name, "mid_block.")) return with_prefix("middle_block", middle(*rest, To::original));
  return std::nullopt;
}

std::optional<std::string> diffusers_unet_name(std::string_view name) {
  if (name == "label_emb.weight") return "class_embedding.weight";
  if (const auto top = exchange(kUNetTop, name, To::diffusers)) return top;
  if (const auto rest = after(name, "input_blocks.")) return diffusers_stage(*rest, true);
  if (const auto rest = after(name, "output_blocks.")) return diffusers_stage(*rest, false);
  if (const auto rest = after(name, "middle_block.")) return with_prefix("mid_block", middle(*rest, To::diffusers));
  return std::nullopt;
}

std::optional<std::string> original_vae_name(std::string_view name, int levels) {
  return vae_name(name, levels, original_vae_half);
}

std::optional<std::string> diffusers_vae_name(std::string_view name, int levels) {
  return vae_name(name, levels, diffusers_vae_half);
}

std::optional<OpenClipPlace> open_clip_place(std::string_view name) {
  for (const Row& row : kTextTop) {
    if (name == row.diffusers) return OpenClipPlace{std::string(row.original), {}, row.original == "text_projection"};
  }
  auto rest = after(name, "text_model.encoder.layers.");
  const auto layer = rest ? take_index(*rest) : std::nullopt;
  if (!layer) return std::nullopt;
  const std::string block = dotted({"transformer.resblocks", std::to_string(*layer)});
  if (const auto same = exchange(kTextLayer, *rest, To::original))
    return OpenClipPlace{dotted({block, *same}), {}, false};
  for (int i = 0; i < 3; ++i) {
    if (const auto kind = below(*rest, kFused[i]))
      return OpenClipPlace{block + ".attn.in_proj_" + std::string(*kind), i};
  }
  return std::nullopt;
}

std::string current_attention_name(std::string name) {
  static constexpr Row kRenamed[] = {
      {".to_q.", ".query."}, {".to_k.", ".key."}, {".to_v.", ".value."}, {".to_out.0.", ".proj_attn."}};
  for (const Row& row : kRenamed) {
    if (const std::size_t at = name.find(row.original); at != std::string::npos)
      name.replace(at, row.original.size(), row.diffusers);
  }
  return name;
}

std::vector<std::string> transformers_text_names(std::string_view name) {
  for (const Row& row : kTextTop) {
    if (name == row.original) return {std::string(row.diffusers)};
  }
  auto rest = after(name, "transformer.resblocks.");
  const auto layer = rest ? take_index(*rest) : std::nullopt;
  if (!layer) return {};
  const std::string block = dotted({"text_model.encoder.layers", std::to_string(*layer)});
  if (const auto same = exchange(kTextLayer, *rest, To::diffusers)) return {dotted({block, *same})};
  const auto kind = after(*rest, "attn.in_proj_");
  if (!kind || (*kind != "weight" && *kind != "bias")) return {};
  std::vector<std::string> names;
  for (const std::string_view part : kFused) names.push_back(dotted({block, part, *kind}));
  return names;
}

}  // namespace laptopdiff::unet
