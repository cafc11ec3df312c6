#include "unet/lora_names.h"

#include <algorithm>

#include "unet/original_names.h"

namespace laptopdiff::unet {
namespace {

struct Ending {
  std::string_view text;
  LoraPart part;
};
constexpr Ending kDottedEndings[] = {
    {".lora_A.weight", LoraPart::down},
    {".lora_B.weight", LoraPart::up},
    {".lora_A.default.weight", LoraPart::down},
    {".lora_B.default.weight", LoraPart::up},
    {".lora.down.weight", LoraPart::down},
    {".lora.up.weight", LoraPart::up},
    {".lora_linear_layer.down.weight", LoraPart::down},
    {".lora_linear_layer.up.weight", LoraPart::up},
    {"_lora.down.weight", LoraPart::down},  // behind `.processor.to_q`
    {"_lora.up.weight", LoraPart::up},
    {".alpha", LoraPart::alpha},
};
constexpr Ending kKohyaEndings[] = {
    {".lora_down.weight", LoraPart::down},
    {".lora_up.weight", LoraPart::up},
    {".alpha", LoraPart::alpha},
};

struct Beginning {
  std::string_view text;
  LoraTarget target;
};
constexpr Beginning kKohyaBeginnings[] = {
    {"lora_unet_", LoraTarget::unet},
    {"lora_te_", LoraTarget::text_encoder},
    {"lora_te1_", LoraTarget::text_encoder},
    {"lora_te2_", LoraTarget::text_encoder_2},
};
constexpr Beginning kDottedBeginnings[] = {
    {"unet.", LoraTarget::unet},
    {"text_encoder.", LoraTarget::text_encoder},
    {"text_encoder_2.", LoraTarget::text_encoder_2},
    {"base_model.model.", LoraTarget::unet},  // peft's own save of a U-Net
};

constexpr std::string_view kTextModel = "text_model.";

template <std::size_t N>
std::optional<LoraPart> take_ending(const Ending (&endings)[N], std::string_view& name) {
  for (const Ending& ending : endings) {
    if (!name.ends_with(ending.text)) continue;
    name.remove_suffix(ending.text.size());
    return ending.part;
  }
  return std::nullopt;
}

template <std::size_t N>
std::optional<LoraTarget> take_beginning(const Beginning (&beginnings)[N], std::string_view& name) {
  for (const Beginning& beginning : beginnings) {
    if (!name.starts_with(beginning.text)) continue;
    name.remove_prefix(beginning.text.size());
    return beginning.target;
  }
  return std::nullopt;
}

// "attn1.processor.to_out" and "attn1.to_out" -> "attn1.to_out.0"
std::string current_module(std::string module) {
  constexpr std::string_view kProcessor = ".processor.";
  if (const std::size_t at = module.find(kProcessor); at != std::string::npos)
    module.replace(at, kProcessor.size(), ".");
  if (module.ends_with(".to_out")) module += ".0";
  return module;
}

// "self_attn.to_q", as older files have it, -> "self_attn.q_proj"
std::string current_text_module(std::string module) {
  constexpr std::pair<std::string_view, std::string_view> kRenamed[] = {
      {".to_q", ".q_proj"}, {".to_k", ".k_proj"}, {".to_v", ".v_proj"}, {".to_out.0", ".out_proj"}};
  for (const auto& [old, now] : kRenamed) {
    if (!module.ends_with(old)) continue;
    module.replace(module.size() - old.size(), old.size(), now);
    break;
  }
  return module;
}

std::string with_underscores(std::string name) {
  std::replace(name.begin(), name.end(), '.', '_');
  return name;
}

std::string_view without_text_model(std::string_view name) {
  if (name.starts_with(kTextModel)) name.remove_prefix(kTextModel.size());
  return name;
}

}  // namespace

const char* lora_target_name(LoraTarget target) {
  constexpr const char* kNames[] = {"unet", "text_encoder", "text_encoder_2"};
  return kNames[static_cast<int>(target)];
}

std::optional<LoraName> parse_lora_name(std::string_view name) {
  if (const auto target = take_beginning(kKohyaBeginnings, name)) {
    const auto part = take_ending(kKohyaEndings, name);
    if (!part) return std::nullopt;
    return LoraName{*target, std::string(name), true, *part};
  }
  const auto part = take_ending(kDottedEndings, name);
  if (!part) return std::nullopt;
  // The oldest files name no model: they are of the U-Net.
  const auto target = take_beginning(kDottedBeginnings, name);
  return LoraName{target.value_or(LoraTarget::unet), current_module(std::string(name)), false, *part};
}

LoraModules::LoraModules(LoraTarget target, const std::vector<std::string>& modules) {
  for (const std::string& module : modules) {
    if (target != LoraTarget::unet) {
      const std::string plain(without_text_model(module));
      dotted_[plain] = module;
      underscored_[with_underscores(plain)] = module;
      continue;
    }
    dotted_[module] = module;
    underscored_[with_underscores(module)] = module;
    for (const Family family : {Family::sd, Family::sd_xl}) {
      auto original = original_unet_name(module + ".weight", family);
      if (!original) continue;
      original->resize(original->size() - std::string_view(".weight").size());
      underscored_[with_underscores(*original)] = module;
    }
  }
}

std::optional<std::string> LoraModules::find(const LoraName& name) const {
  std::string wanted = name.module;
  if (name.target != LoraTarget::unet) {
    if (name.underscored && wanted.starts_with("text_model_")) wanted.erase(0, kTextModel.size());
    else wanted = current_text_module(std::string(without_text_model(wanted)));
  }
  const auto& table = name.underscored ? underscored_ : dotted_;
  const auto found = table.find(wanted);
  if (found == table.end()) return std::nullopt;
  return found->second;
}

}  // namespace laptopdiff::unet
