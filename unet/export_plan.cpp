#include "unet/export_plan.h"

#include <algorithm>
#include <functional>
#include <map>
#include <numeric>
#include <optional>
#include <set>

#include "runtime/error.h"
#include "unet/native_config.h"

namespace laptopdiff::unet {
namespace {

using runtime::cat;
using runtime::usage_error;

std::string parent(const std::string& path) { return path.substr(0, path.rfind('.')); }

// A variant beside its base: what became of each base step.
class Comparison {
 public:
  Comparison(const Program& base, const Program& pruned) : base_(base), left_(base.steps.size()) {
    stage_left_.assign(base.stages.size(), false);
    for (const Step& step : pruned.steps) {
      left_[static_cast<std::size_t>(step.position)] = step.kind;
      if (step.stage >= 0) stage_left_[static_cast<std::size_t>(step.stage)] = true;
    }
    for (const Step& step : base.steps) {
      if ((step.kind == StepKind::push || step.kind == StepKind::pop_concat) && gone(step)) dropped_.insert(step.path);
    }
  }

  bool gone(const Step& step) const { return !left_[static_cast<std::size_t>(step.position)]; }
  bool shortcut_only(const Step& step) const {
    const bool layer = step.kind == StepKind::resnet || step.kind == StepKind::attention;
    return layer && left_[static_cast<std::size_t>(step.position)] == StepKind::shortcut;
  }
  // The layer went with the skip that it pushes or pops.
  bool dropped(const std::string& resnet) const { return dropped_.contains(resnet); }
  bool stage_gone(const Step& step) const {
    return step.stage >= 0 && !stage_left_[static_cast<std::size_t>(step.stage)];
  }
  const std::string& stage_path(const Step& step) const {
    return base_.stages[static_cast<std::size_t>(step.stage)].path;
  }

 private:
  const Program& base_;
  std::vector<std::optional<StepKind>> left_;
  std::vector<bool> stage_left_;
  std::set<std::string> dropped_;  // layers by their ResNet's path
};

bool is_sampler(const Step& step) {
  return step.kind == StepKind::downsample || step.kind == StepKind::upsample ||
         (step.kind == StepKind::resnet && step.resample != Resample::none);
}

// "down_blocks.0.attentions.1" -> "down_blocks.0.resnets.1"
std::string resnet_of(const std::string& attention) {
  const std::size_t at = attention.find(".attentions.");
  return at == std::string::npos ? attention : attention.substr(0, at) + ".resnets." + attention.substr(at + 12);
}

// The pairs of `removed_layers` in config.json; see laptopdiff_pruned_unet.py.
class RemovedLayers {
 public:
  RemovedLayers(const Program& base, const Comparison& what) : what_(what) {
    for (std::size_t i = 0; i < base.steps.size(); ++i) {
      const Step& step = base.steps[i];
      if (step.kind == StepKind::push || step.kind == StepKind::pop_concat) continue;
      if (what.stage_gone(step)) add_stage(what.stage_path(step));
      else if (step.kind == StepKind::attn1) add_block(step, base.steps[i + 1], base.steps[i + 2]);
      else if (step.kind != StepKind::attn2 && step.kind != StepKind::ff) add_layer(step);
    }
  }
  Json list() const { return list_; }

 private:
  void add(const std::string& path, const char* how) { list_.push_back({path, how}); }

  void add_stage(const std::string& path) {
    if (stages_.insert(path).second) add(path, "drop");
  }

  void add_layer(const Step& step) {
    if (what_.shortcut_only(step)) return add(step.path, "shortcut");
    if (!what_.gone(step) || step.kind == StepKind::shell_out) return;
    if (step.kind == StepKind::shell_in) shells_.insert(step.path);
    if (is_sampler(step)) add(parent(step.path), "drop");
    else add(step.path, what_.dropped(resnet_of(step.path)) ? "drop" : "skip");
  }

  void add_block(const Step& attn1, const Step& attn2, const Step& ff) {
    if (shells_.contains(parent(parent(attn1.path)))) return;  // gone with its shell
    if (what_.gone(attn1) && what_.gone(attn2) && what_.gone(ff)) return add(attn1.path, "skip");
    for (const Step* part : {&attn1, &attn2, &ff}) {
      if (what_.gone(*part)) add(cat(part->path, ".", step_name(part->kind)), "zero");
    }
  }

  const Comparison& what_;
  Json list_ = Json::array();
  std::set<std::string> stages_, shells_;
};

// diffusers slices `skips[-len(resnets):]`, which takes every skip where a stage has no ResNet.
void require_up_layers(const Program& base, const Comparison& what) {
  std::map<std::string, int> layers;
  for (const Step& step : base.steps) {
    if (step.kind == StepKind::pop_concat && !what.stage_gone(step)) layers[what.stage_path(step)] += !what.gone(step);
  }
  for (const auto& [stage, count] : layers) {
    if (count == 0)
      throw usage_error("no such form: diffusers cannot run ", stage, ", of which only the up-sampler is left");
  }
}

std::vector<ExportTensor> copies(const Program& program) {
  std::vector<ExportTensor> tensors;
  for (const Step& step : program.steps) {
    for (Parameter& parameter : step_parameters(program.config, program.stages, step))
      tensors.push_back({parameter.name, std::move(parameter.shape), Fill::copy, parameter.name});
  }
  return tensors;
}

Json plain_config(const Config& config) {
  Json json = config.raw;
  json.erase("_name_or_path");
  return json;
}

ExportPlan native_plan(const NativeForm& form, Geometry geometry) {
  ExportPlan plan{Form::native,
                  cat("a config of ", form.config.class_name(), " describes it"),
                  plain_config(form.config),
                  "diffusers",
                  form.config.class_name(),
                  {}};
  plan.tensors = copies(build_base(form.config, geometry));
  for (ExportTensor& tensor : plan.tensors) tensor.source = form.base_names.at(tensor.name);
  return plan;
}

ExportPlan custom_plan(const Program& base, const Program& pruned, const std::string& why) {
  const Comparison what(base, pruned);
  require_up_layers(base, what);
  ExportPlan plan{Form::custom,
                  cat("no config of ", base.config.class_name(), " describes it: ", why),
                  plain_config(base.config),
                  kPrunedModule,
                  cat(kPrunedClass, base.config.class_name()),
                  {}};
  plan.config["_class_name"] = plan.class_name;
  plan.config["auto_map"] = {{"AutoModel", cat(kPrunedModule, ".", plan.class_name)}};
  plan.config["removed_layers"] = removed_layers(base, pruned);
  plan.tensors = copies(pruned);
  return plan;
}

[[noreturn]] void no_dense_form(const std::string& why) {
  throw usage_error("no such form: a zeroed full-size model cannot stand for this one: ", why);
}

double output_scale(const Program& base, const Step& step) {
  return step.stage < 0 ? 1.0 : base.stages[static_cast<std::size_t>(step.stage)].output_scale;
}

// A removed layer becomes the identity only where its sum is not divided afterwards. `entering`: the hidden state's
// channels, without a skip.
void check_identity(const Program& base, const Step& step, int entering) {
  if (step.kind != StepKind::resnet && step.kind != StepKind::attention) return;
  if (output_scale(base, step) != 1.0)
    no_dense_form(cat(step.path, " divides its output by ", output_scale(base, step), " even with a zeroed branch"));
  if (step.out_channels != entering)
    no_dense_form(cat(step.path, " changes the channel count from ", entering, " to ", step.out_channels));
}

// Walks both networks with a name for each hidden state (the last step that changed it): every skip that a layer
// takes in the pruned model must be the one that it takes in the full one.
void require_dense_form(const Program& base, const Comparison& what) {
  int hidden = -1;
  int before_concat = 0;          // channels, between a dropped layer's pop and its ResNet
  std::vector<int> full, pruned;  // the skip stacks
  for (const Step& step : base.steps) {
    if (is_sampler(step) && what.gone(step))
      no_dense_form(cat(step.path, " is gone, and a full-size model changes the resolution there"));
    if (step.kind == StepKind::push) {
      full.push_back(hidden);
      if (!what.gone(step)) pruned.push_back(hidden);
      continue;
    }
    if (step.kind == StepKind::pop_concat) {
      if (what.gone(step)) before_concat = step.in_channels;
      else if (pruned.back() != full.back())
        no_dense_form(cat(step.path, " takes another skip than in the full model"));
      else pruned.pop_back();
      full.pop_back();
    } else if (what.gone(step)) {
      check_identity(base, step, before_concat > 0 ? before_concat : step.in_channels);
      before_concat = 0;
    }
    if (!what.gone(step)) hidden = step.position;
  }
}

// What stable-diffusion.cpp builds for the students that it recognises; its widths are fixed.
bool known_student(const Config& config) {
  if (config.model_class != ModelClass::conditional || config.down.size() != 3) return false;
  constexpr int kWidths[] = {320, 640, 1280};
  for (std::size_t i = 0; i < config.down.size(); ++i) {
    if (config.down[i].channels != kWidths[i]) return false;
  }
  if (config.in_channels != 4 || config.out_channels != 4) return false;
  const auto depths = [](const std::vector<Stage>& stages) {
    Json list = Json::array();
    for (const Stage& stage : stages) list.push_back(stage.depth);
    return list;
  };
  const Json down = depths(config.down), up = depths(config.up);
  if (config.mid.empty())  // sd_tiny
    return !config.text_time && down == Json::parse("[[1],[1],[1]]") && up == Json::parse("[[1,1],[1,1],[1,1]]");
  if (!config.text_time || config.mid.front().layers != 1) return false;
  const bool ssd_1b = down == Json::parse("[[],[2,2],[4,4]]") && up == Json::parse("[[4,4,10],[2,1,1],[]]");
  const bool vega = down == Json::parse("[[],[1,1],[2,2]]") && up == Json::parse("[[2,2,2],[1,1,1],[]]");
  return ssd_1b || vega;
}

}  // namespace

const char* form_name(Form form) {
  constexpr const char* kNames[] = {"native", "custom", "dense"};
  return kNames[static_cast<int>(form)];
}

std::int64_t ExportPlan::params() const {
  std::int64_t total = 0;
  for (const ExportTensor& tensor : tensors)
    total += std::accumulate(tensor.shape.begin(), tensor.shape.end(), std::int64_t{1}, std::multiplies<>());
  return total;
}

Json removed_layers(const Program& base, const Program& pruned) {
  return RemovedLayers(base, Comparison(base, pruned)).list();
}

ExportPlan plan_diffusers(const Program& base, const Program& pruned) {
  const NativeForm native = native_form(base, pruned);
  return native.exists() ? native_plan(native, pruned.geometry) : custom_plan(base, pruned, native.why_not);
}

ExportPlan plan_dense(const Program& base, const Program& pruned) {
  const Comparison what(base, pruned);
  require_dense_form(base, what);
  ExportPlan plan{Form::dense,
                  "the full model with the removed layers zeroed",
                  plain_config(base.config),
                  "diffusers",
                  base.config.class_name(),
                  copies(base)};
  std::set<std::string> kept;
  for (const ExportTensor& tensor : copies(pruned)) kept.insert(tensor.name);
  for (ExportTensor& tensor : plan.tensors) {
    if (kept.contains(tensor.name)) continue;
    const bool shortcut = tensor.name.ends_with(".conv_shortcut.weight");
    tensor.fill = shortcut ? Fill::pick_hidden : Fill::zeros;
    tensor.source.clear();
  }
  return plan;
}

ExportPlan plan_single_file(const Program& base, const Program& pruned) {
  if (base.config.model_class != ModelClass::conditional)
    throw usage_error("no such form: original single-file checkpoints hold a UNet2DConditionModel, not a ",
                      base.config.class_name());
  if (base.config.text_time && base.config.up.front().attention != LayerAttention::transformer)
    throw usage_error("no such form: original files of SD XL's refiner are numbered in another way");
  const NativeForm native = native_form(base, pruned);
  if (native.exists() && known_student(native.config)) {
    ExportPlan plan = native_plan(native, pruned.geometry);
    plan.why = "stable-diffusion.cpp knows this student's shape";
    return plan;
  }
  return plan_dense(base, pruned);
}

}  // namespace laptopdiff::unet
