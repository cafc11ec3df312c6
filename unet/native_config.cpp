#include "unet/native_config.h"

#include <algorithm>
#include <optional>
#include <tuple>

#include "runtime/error.h"

namespace laptopdiff::unet {
namespace {

using runtime::cat;

// What of the config decides the maths beyond the steps' shapes.
std::string differing_setting(const Config& a, const Config& b) {
  const std::pair<const char*, bool> kSame[] = {
      {"_class_name", a.model_class == b.model_class},
      {"center_input_sample", a.center_input_sample == b.center_input_sample},
      {"flip_sin_to_cos", a.flip_sin_to_cos == b.flip_sin_to_cos},
      {"freq_shift", a.freq_shift == b.freq_shift},
      {"timestep_post_act",
       a.time_embedding_post_act == b.time_embedding_post_act && a.time_post_act == b.time_post_act},
      {"time_embedding_act_fn", a.time_embed_act == b.time_embed_act && a.time_act == b.time_act},
      {"class_embed_type", a.class_embedding == b.class_embedding},
      {"class_embeddings_concat", a.class_embeddings_concat == b.class_embeddings_concat},
      {"addition_embed_type", a.text_time == b.text_time},
      {"addition_time_embed_dim", a.addition_time_embed_dim == b.addition_time_embed_dim},
      {"act_fn", a.act == b.act},
      {"norm_num_groups", a.norm_groups == b.norm_groups},
      {"norm_eps", a.norm_eps == b.norm_eps},
      {"resnet_time_scale_shift", a.time_scale_shift == b.time_scale_shift},
      {"use_linear_projection", a.linear_projection == b.linear_projection},
      {"downsample_padding", a.downsample_padding == b.downsample_padding}};
  for (const auto& [name, same] : kSame) {
    if (!same) return cat("`", name, "` differs");
  }
  return "";
}

bool same_attention(const Stage& a, const Stage& b) {
  return a.heads == b.heads && a.context == b.context && a.only_cross_attention == b.only_cross_attention &&
         a.attention_norm == b.attention_norm && a.attention_groups == b.attention_groups;
}

bool attends(StepKind kind) {
  return kind == StepKind::attn1 || kind == StepKind::attn2 || kind == StepKind::attention;
}

// Where two steps at the same place do not do the same work, what differs.
std::string differing_step(const Program& a, const Step& x, const Program& b, const Step& y) {
  const std::string where = cat(x.path, " (", step_name(x.kind), ") against ", y.path, " (", step_name(y.kind), ")");
  if (x.kind != y.kind || x.resample != y.resample) return where;
  if (x.in_channels != y.in_channels || x.out_channels != y.out_channels) {
    return cat(where, ": ", x.in_channels, " to ", x.out_channels, " channels against ", y.in_channels, " to ",
               y.out_channels);
  }
  if (x.height != y.height || x.width != y.width) return where + ": another resolution";
  if ((x.stage < 0) != (y.stage < 0)) return where;
  if (x.stage < 0) return "";
  const Stage &s = a.stages[static_cast<std::size_t>(x.stage)], &t = b.stages[static_cast<std::size_t>(y.stage)];
  if (attends(x.kind) && !same_attention(s, t)) return where + ": another number of heads, context or norm";
  if (s.output_scale != t.output_scale || s.skip_time_act != t.skip_time_act) return where + ": another scale factor";
  return "";
}

// What is left of one stage.
struct Remainder {
  bool present = false;    // any step
  int layers = 0;          // whole ResNets, samplers aside
  int attentions = 0;      // shells or plain attentions
  std::vector<int> depth;  // of each shell that is left
};

struct NoSuchConfig {
  std::string why;
};
template <typename... Args>
[[noreturn]] void refuse(const Args&... args) {
  throw NoSuchConfig{cat(args...)};
}

std::vector<Remainder> remainders(const Program& pruned) {
  std::vector<Remainder> list(pruned.stages.size());
  for (const Step& step : pruned.steps) {
    if (step.stage < 0) continue;
    Remainder& left = list[static_cast<std::size_t>(step.stage)];
    left.present = true;
    switch (step.kind) {
      case StepKind::shortcut: refuse(step.path, " keeps only its skip branch");
      case StepKind::resnet: left.layers += step.resample == Resample::none ? 1 : 0; break;
      case StepKind::attention: ++left.attentions; break;
      case StepKind::shell_in:
        ++left.attentions;
        left.depth.push_back(0);
        break;
      case StepKind::attn1: ++left.depth.back(); break;
      default: break;
    }
  }
  return list;
}

// A block's name without its attention; names without one are returned as they are.
std::string without_attention(std::string name) {
  for (const char* prefix : {"CrossAttn", "Attn"}) {
    if (name.rfind(prefix, 0) == 0) return name.substr(std::string(prefix).size());
  }
  return name;
}

// Writes the config that would describe what is left, or throws NoSuchConfig.
class ConfigWriter {
 public:
  ConfigWriter(const Program& base, const Program& pruned)
      : base_(base.config), left_(remainders(pruned)), stages_(base_.down.size()), json_(base_.raw) {}

  Json write() {
    json_.erase("_name_or_path");
    choose_stages();
    take_stages();
    write_layers();
    write_types();
    write_mid();
    if (conditional()) write_depths();
    return json_;
  }

 private:
  bool conditional() const { return base_.model_class == ModelClass::conditional; }
  const Remainder& down(std::size_t i) const { return left_[i]; }
  const Remainder& up(std::size_t i) const { return left_[stages_ + base_.mid.size() + i]; }
  // The up stage of a down stage.
  std::size_t mirror(std::size_t i) const { return stages_ - 1 - i; }

  void choose_stages() {
    for (std::size_t i = 0; i < stages_; ++i) {
      if (down(i).present != up(mirror(i)).present)
        refuse("of ", base_.down[i].path, " and ", base_.up[mirror(i)].path, " only one is left");
      if (down(i).present) kept_.push_back(i);
    }
    if (kept_.empty()) refuse("no stage is left");
  }

  // Every list with an entry a stage loses those of the stages that are gone.
  void take_stages() {
    const Json widths = [&] {
      Json list = Json::array();
      for (const Stage& stage : base_.down) list.push_back(stage.channels);
      return list;
    }();
    json_["block_out_channels"] = widths;
    for (const char* key :
         {"block_out_channels", "attention_head_dim", "cross_attention_dim", "only_cross_attention"}) {
      if (!json_.contains(key) || !json_[key].is_array()) continue;
      Json taken = Json::array();
      for (const std::size_t i : kept_) taken.push_back(json_[key].at(i));
      json_[key] = taken;
    }
  }

  void write_layers() {
    std::vector<int> layers;
    for (const std::size_t i : kept_) {
      const int of_down = down(i).layers, of_up = up(mirror(i)).layers;
      if (of_up != of_down + 1) {
        refuse(base_.down[i].path, " keeps ", of_down, " ResNets and ", base_.up[mirror(i)].path, " ", of_up,
               "; the config ties them as n and n + 1");
      }
      layers.push_back(of_down);
    }
    json_["layers_per_block"] = one_or_list(layers);
    if (!conditional() && json_["layers_per_block"].is_array())
      refuse("stages of unequal length: UNet2DModel has one layers_per_block for all");
  }

  std::string type(const Json& names, std::size_t i, const Stage& stage, const Remainder& left) const {
    const auto name = names.at(i).get<std::string>();
    if (stage.attention == LayerAttention::none || (left.attentions == left.layers && left.layers > 0)) return name;
    if (left.attentions != 0) {
      refuse(stage.path, " keeps ", left.attentions, " attentions for ", left.layers,
             " ResNets; the config knows all or none");
    }
    return without_attention(name);
  }

  Json type_names(const char* key) const {
    if (base_.raw.contains(key) && !base_.raw[key].is_null()) return base_.raw[key];
    const bool is_down = std::string(key) == "down_block_types";
    const std::string cross = conditional() ? "CrossAttn" : "Attn", which = is_down ? "Down" : "Up";
    Json names = Json::array();
    for (const Stage& stage : is_down ? base_.down : base_.up)
      names.push_back((stage.attention == LayerAttention::none ? "" : cross) + which + "Block2D");
    return names;
  }

  void write_types() {
    const Json down_names = type_names("down_block_types"), up_names = type_names("up_block_types");
    Json down_types = Json::array(), up_types = Json::array();
    for (const std::size_t i : kept_) down_types.push_back(type(down_names, i, base_.down[i], down(i)));
    for (auto i = kept_.rbegin(); i != kept_.rend(); ++i)
      up_types.push_back(type(up_names, mirror(*i), base_.up[mirror(*i)], up(mirror(*i))));
    json_["down_block_types"] = down_types;
    json_["up_block_types"] = up_types;
  }

  void write_mid() {
    if (base_.mid.empty()) return;
    const Remainder& left = left_[stages_];
    const Stage& mid = base_.mid.front();
    const int attentions = mid.attention == LayerAttention::none ? 0 : 1;
    if (left.layers == 0 && left.attentions == 0) json_["mid_block_type"] = nullptr;
    else if (left.layers == mid.layers && left.attentions == attentions) return;
    else if (conditional() && left.layers == 1 && left.attentions == 0) json_["mid_block_type"] = "UNetMidBlock2D";
    else if (!conditional() && left.layers == mid.layers) json_["add_attention"] = false;
    else refuse("mid_block keeps ", left.layers, " ResNets and ", left.attentions, " attentions");
  }

  // A stage's entry of transformer_layers_per_block; none where it has no transformer and any number would do.
  static std::optional<Json> depth_entry(const Remainder& left) {
    if (left.depth.empty()) return std::nullopt;
    return one_or_list(left.depth);
  }

  void write_depths() {
    std::vector<std::optional<Json>> of_down, of_up;  // both in down order
    for (const std::size_t i : kept_) {
      of_down.push_back(depth_entry(down(i)));
      of_up.push_back(depth_entry(up(mirror(i))));
    }
    // The middle reads the last entry, or its first element.
    if (!base_.mid.empty() && !left_[stages_].depth.empty()) {
      const int depth = left_[stages_].depth.front();
      std::optional<Json>& last = of_down.back();
      if (!last) last = depth;
      if ((last->is_array() ? last->front() : *last) != depth)
        refuse("mid_block has ", depth, " transformer blocks, the first layer of the last down stage another number");
    }
    const auto scalar = [](const std::optional<Json>& entry) { return entry && !entry->is_array(); };
    Json down_list = Json::array(), up_list = Json::array();
    bool mirrored = true;
    for (std::size_t k = 0; k < kept_.size(); ++k) {
      const Json first = of_down[k].value_or(scalar(of_up[k]) ? *of_up[k] : Json(1));
      const Json second = of_up[k].value_or(first.is_array() ? Json(1) : first);
      mirrored = mirrored && !first.is_array() && first == second;
      down_list.push_back(first);
      up_list.insert(up_list.begin(), second);
    }
    const bool uniform =
        mirrored && std::adjacent_find(down_list.begin(), down_list.end(), std::not_equal_to<>()) == down_list.end();
    json_["transformer_layers_per_block"] = uniform ? down_list.front() : down_list;
    json_.erase("reverse_transformer_layers_per_block");
    if (!mirrored) json_["reverse_transformer_layers_per_block"] = up_list;
  }

  const Config& base_;
  std::vector<Remainder> left_;
  std::size_t stages_;
  std::vector<std::size_t> kept_;  // down stages that are left
  Json json_;
};

NativeForm unchanged(const Program& base) {
  NativeForm form;
  form.config = base.config;
  for (const Step& step : base.steps) {
    for (const Parameter& parameter : step_parameters(base.config, base.stages, step))
      form.base_names[parameter.name] = parameter.name;
  }
  return form;
}

// The ResNet that became the identity while its skip stayed: the usual reason, and the clearest to name.
std::string bypassed_layer(const Program& base, const Program& pruned) {
  std::vector<bool> left(base.steps.size());
  for (const Step& step : pruned.steps) left[static_cast<std::size_t>(step.position)] = true;
  const auto gone = [&](const Step& step) { return !left[static_cast<std::size_t>(step.position)]; };
  const auto skip_stays = [&](const std::string& path) {
    return std::any_of(base.steps.begin(), base.steps.end(), [&](const Step& step) {
      return (step.kind == StepKind::push || step.kind == StepKind::pop_concat) && step.path == path && !gone(step);
    });
  };
  for (const Step& step : base.steps) {
    if (step.kind == StepKind::resnet && gone(step) && skip_stays(step.path))
      return step.path + " becomes the identity";
    const bool part = step.kind == StepKind::attn1 || step.kind == StepKind::attn2 || step.kind == StepKind::ff;
    if (!part || !gone(step)) continue;
    for (const Step& other : pruned.steps) {
      if (other.path == step.path) return cat(step.path, " loses its ", step_name(step.kind), " only");
    }
  }
  return "";
}

}  // namespace

Json one_or_list(const std::vector<int>& values) {
  const bool equal = std::adjacent_find(values.begin(), values.end(), std::not_equal_to<>()) == values.end();
  return equal && !values.empty() ? Json(values.front()) : Json(values);
}

Match match_programs(const Program& first, const Program& second) {
  Match match;
  match.difference = differing_setting(first.config, second.config);
  for (std::size_t i = 0; match.matches() && i < std::min(first.steps.size(), second.steps.size()); ++i) {
    const Step &x = first.steps[i], &y = second.steps[i];
    match.difference = differing_step(first, x, second, y);
    if (!match.matches()) return match;
    const auto ours = step_parameters(first.config, first.stages, x);
    const auto theirs = step_parameters(second.config, second.stages, y);
    for (std::size_t k = 0; k < std::min(ours.size(), theirs.size()); ++k) {
      if (ours[k].shape != theirs[k].shape) match.difference = cat(ours[k].name, " has another shape");
      match.names[theirs[k].name] = ours[k].name;
    }
    if (ours.size() != theirs.size()) match.difference = x.path + " has other tensors";
  }
  if (match.matches() && first.steps.size() != second.steps.size())
    match.difference = cat(first.steps.size(), " steps against ", second.steps.size());
  return match;
}

NativeForm native_form(const Program& base, const Program& pruned) {
  if (base.steps.size() == pruned.steps.size() && base.params() == pruned.params()) return unchanged(base);
  NativeForm form;
  form.why_not = bypassed_layer(base, pruned);
  if (!form.exists()) return form;
  try {
    form.config = parse_config(ConfigWriter(base, pruned).write(), "native config");
    Match match = match_programs(pruned, build_base(form.config, pruned.geometry));
    form.base_names = std::move(match.names);
    form.why_not = match.difference;
  } catch (const NoSuchConfig& no) {
    form.why_not = no.why;
  } catch (const runtime::Error& error) {  // a config that no class accepts
    form.why_not = error.what();
  }
  return form;
}

}  // namespace laptopdiff::unet
