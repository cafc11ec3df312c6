#include "unet/program.h"

#include <algorithm>
#include <functional>
#include <map>
#include <numeric>

#include "runtime/error.h"

namespace laptopdiff::unet {
namespace {

using runtime::cat;
using runtime::input_error;

constexpr int kDefaultLatent = 64;
constexpr int kMaxSide = 1 << 21;  // of a hidden state

bool starts_with(const std::string& text, const std::string& prefix) { return text.rfind(prefix, 0) == 0; }

// Emits the base program stage by stage, keeping the channel count and the skips' widths.
class Builder {
 public:
  Builder(const Config& config, Program& program) : config_(config), program_(program) {}

  void build() {
    for (const auto* list : {&config_.down, &config_.mid, &config_.up}) {
      program_.stages.insert(program_.stages.end(), list->begin(), list->end());
    }
    const int width = config_.down.front().channels;
    emit(StepKind::embed, "time_embedding", 0, 0);
    emit(StepKind::conv_in, "conv_in", config_.in_channels, width);
    push("conv_in");
    for (const Stage& stage : config_.down) down(stage);
    for (const Stage& stage : config_.mid) mid(stage);
    for (const Stage& stage : config_.up) up(stage);
    stage_ = -1;
    emit(StepKind::norm_out, "conv_norm_out", channels_, channels_);
    emit(StepKind::conv_out, "conv_out", channels_, config_.out_channels);
  }

 private:
  void emit(StepKind kind, const std::string& path, int in, int out, Resample resample = Resample::none) {
    Step step{kind, path};
    step.position = static_cast<int>(program_.steps.size());
    step.stage = stage_;
    step.in_channels = in;
    step.out_channels = out;
    step.resample = resample;
    program_.steps.push_back(std::move(step));
    if (kind != StepKind::embed) channels_ = out;
  }
  void push(const std::string& owner) {
    emit(StepKind::push, owner, channels_, channels_);
    skips_.push_back(channels_);
  }
  void attention(const Stage& stage, int layer) {
    if (stage.attention == LayerAttention::none) return;
    const std::string path = cat(stage.path, ".attentions.", layer);
    if (stage.attention == LayerAttention::plain) {
      emit(StepKind::attention, path, channels_, channels_);
      return;
    }
    emit(StepKind::shell_in, path, channels_, channels_);
    for (int k = 0; k < stage.depth[static_cast<std::size_t>(layer)]; ++k) {
      const std::string block = cat(path, ".transformer_blocks.", k);
      emit(StepKind::attn1, block, channels_, channels_);
      emit(StepKind::attn2, block, channels_, channels_);
      emit(StepKind::ff, block, channels_, channels_);
    }
    emit(StepKind::shell_out, path, channels_, channels_);
  }
  void down(const Stage& stage) {
    ++stage_;
    for (int j = 0; j < stage.layers; ++j) {
      const std::string path = cat(stage.path, ".resnets.", j);
      emit(StepKind::resnet, path, channels_, stage.channels);
      attention(stage, j);
      push(path);
    }
    if (stage.sampler == Resample::none) return;
    const std::string path = stage.path + ".downsamplers.0";
    if (stage.sampler == Resample::conv) emit(StepKind::downsample, path, stage.channels, stage.channels);
    if (stage.sampler == Resample::resnet)
      emit(StepKind::resnet, path, stage.channels, stage.channels, Resample::resnet);
    push(path);
  }
  void mid(const Stage& stage) {
    ++stage_;
    for (int j = 0; j < stage.layers; ++j) {
      emit(StepKind::resnet, cat(stage.path, ".resnets.", j), channels_, stage.channels);
      if (j == 0) attention(stage, 0);
    }
  }
  void up(const Stage& stage) {
    ++stage_;
    for (int j = 0; j < stage.layers; ++j) {
      const std::string path = cat(stage.path, ".resnets.", j);
      if (skips_.empty())
        throw input_error("the up stages ask for more skips than the down stages make (at ", path, ")");
      emit(StepKind::pop_concat, path, channels_, channels_ + skips_.back());
      skips_.pop_back();
      emit(StepKind::resnet, path, channels_, stage.channels);
      attention(stage, j);
    }
    if (stage.sampler == Resample::conv)
      emit(StepKind::upsample, stage.path + ".upsamplers.0", channels_, stage.channels);
    if (stage.sampler == Resample::resnet) {
      emit(StepKind::resnet, stage.path + ".upsamplers.0", channels_, stage.channels, Resample::resnet);
    }
  }

  const Config& config_;
  Program& program_;
  int stage_ = -1;
  int channels_ = 0;
  std::vector<int> skips_;
};

using Shapes = std::vector<Parameter>;

void affine(Shapes& out, const std::string& path, std::int64_t width) {
  out.push_back({path + ".weight", {width}});
  out.push_back({path + ".bias", {width}});
}
void linear(Shapes& out, const std::string& path, std::int64_t to, std::int64_t from, bool bias) {
  out.push_back({path + ".weight", {to, from}});
  if (bias) out.push_back({path + ".bias", {to}});
}
void conv(Shapes& out, const std::string& path, std::int64_t to, std::int64_t from, std::int64_t kernel) {
  out.push_back({path + ".weight", {to, from, kernel, kernel}});
  out.push_back({path + ".bias", {to}});
}
void two_linears(Shapes& out, const std::string& path, std::int64_t from, std::int64_t width) {
  linear(out, path + ".linear_1", width, from, true);
  linear(out, path + ".linear_2", width, width, true);
}

void embed_parameters(Shapes& out, const Config& c) {
  two_linears(out, "time_embedding", c.time_channels, c.time_embed_dim);
  if (c.time_cond_proj_dim > 0) linear(out, "time_embedding.cond_proj", c.time_channels, c.time_cond_proj_dim, false);
  switch (c.class_embedding) {
    case ClassEmbedding::table:
      out.push_back({"class_embedding.weight", {c.num_class_embeds, c.time_embed_dim}});
      break;
    case ClassEmbedding::timestep: two_linears(out, "class_embedding", c.time_channels, c.time_embed_dim); break;
    case ClassEmbedding::projection:
      two_linears(out, "class_embedding", c.class_projection_dim, c.time_embed_dim);
      break;
    case ClassEmbedding::simple_projection:
      linear(out, "class_embedding", c.time_embed_dim, c.class_projection_dim, true);
      break;
    case ClassEmbedding::none:
    case ClassEmbedding::identity: break;
  }
  if (c.text_time) two_linears(out, "add_embedding", c.add_projection_dim, c.time_embed_dim);
}

void resnet_parameters(Shapes& out, const Config& c, const Step& s) {
  affine(out, s.path + ".norm1", s.in_channels);
  conv(out, s.path + ".conv1", s.out_channels, s.in_channels, 3);
  const int time_rows = s.out_channels * (c.time_scale_shift == TimeScaleShift::scale_shift ? 2 : 1);
  linear(out, s.path + ".time_emb_proj", time_rows, c.block_time_dim, true);
  affine(out, s.path + ".norm2", s.out_channels);
  conv(out, s.path + ".conv2", s.out_channels, s.out_channels, 3);
}

void attention_parameters(Shapes& out, const std::string& path, std::int64_t width, std::int64_t context,
                          bool qkv_bias) {
  linear(out, path + ".to_q", width, width, qkv_bias);
  linear(out, path + ".to_k", width, context, qkv_bias);
  linear(out, path + ".to_v", width, context, qkv_bias);
  linear(out, path + ".to_out.0", width, width, true);
}

// proj_in and proj_out: a matrix or a 1x1 convolution, the same numbers.
void projection(Shapes& out, const Config& c, const std::string& path, std::int64_t width) {
  if (c.linear_projection) linear(out, path, width, width, true);
  else conv(out, path, width, width, 1);
}

std::int64_t element_count(const Parameter& parameter) {
  return std::accumulate(parameter.shape.begin(), parameter.shape.end(), std::int64_t{1}, std::multiplies<>());
}

struct Size {
  int height = 0, width = 0;
  std::int64_t area() const { return std::int64_t{height} * width; }
  bool operator==(const Size&) const = default;
};

// Exact or refused: a count is a product of sizes that each came from a file. Far enough from the limit of 64 bits for
// the few products of one step to be added.
std::int64_t product(std::initializer_list<std::int64_t> factors, const Step& step) {
  constexpr std::int64_t kMost = std::int64_t{1} << 59;
  std::int64_t value = 1;
  for (const std::int64_t factor : factors) {
    if (__builtin_mul_overflow(value, factor, &value) || value > kMost) {
      throw input_error(step.path, " (", step_name(step.kind),
                        "): more multiply-accumulates than can be counted; is `sample_size` right?");
    }
  }
  return value;
}

// Multiply-accumulates of a step whose result has the size `size`; every layer but a sampler's keeps it.
std::int64_t count_macs(const Program& p, const Step& s, Size size) {
  const Stage* stage = s.stage < 0 ? nullptr : &p.stages[static_cast<std::size_t>(s.stage)];
  const std::int64_t tokens = p.geometry.tokens;
  const bool cross = s.kind == StepKind::attn2 || (s.kind == StepKind::attn1 && stage->only_cross_attention);
  const auto contains = [](const std::string& name, const char* part) { return name.find(part) != std::string::npos; };
  std::int64_t macs = 0;
  // A convolution or linear layer does its weight count's work once a position.
  for (const Parameter& parameter : step_parameters(p.config, p.stages, s)) {
    if (parameter.shape.size() < 2) continue;
    const std::string& name = parameter.name;
    if (name == "class_embedding.weight" && p.config.class_embedding == ClassEmbedding::table) continue;  // a look-up
    const bool once = s.kind == StepKind::embed || contains(name, "time_emb_proj");
    const bool of_text = cross && (contains(name, ".to_k.") || contains(name, ".to_v."));
    macs += product({element_count(parameter), once ? 1 : of_text ? tokens : size.area()}, s);
  }
  if (cross) return macs + product({2, size.area(), tokens, s.out_channels}, s);
  if (s.kind == StepKind::attn1 || s.kind == StepKind::attention)
    macs += product({2, size.area(), size.area(), s.out_channels}, s);
  return macs;
}

Size downsampled(const Config& c, Size in, Resample kind) {
  // Resnet downsampling is an average pool of 2; conv: padding 1 keeps ceil(n/2), padding 0 pads right and bottom:
  // floor.
  if (kind == Resample::resnet || c.downsample_padding == 0) return {in.height / 2, in.width / 2};
  return {(in.height + 1) / 2, (in.width + 1) / 2};
}

// The state check_program() walks.
struct Walk {
  int channels = 0;
  Size size;
  std::vector<std::pair<int, Size>> skips;
};

[[noreturn]] void misfit(const Step& step, const std::string& why) {
  throw input_error(step.path, " (", step_name(step.kind), "): ", why);
}

void advance(Walk& walk, const Program& program, const Step& step) {
  const bool embeds = step.kind == StepKind::embed;
  if (!embeds && walk.channels != step.in_channels) {
    misfit(step, cat("expects ", step.in_channels, " channels, gets ", walk.channels,
                     "; what is removed before it does not fit"));
  }
  const bool up = step.path.find("upsamplers") != std::string::npos;
  switch (step.kind) {
    case StepKind::push: walk.skips.emplace_back(walk.channels, walk.size); break;
    case StepKind::pop_concat: {
      if (walk.skips.empty()) misfit(step, "no skip is left; a down layer was dropped without its up layer");
      const auto [channels, size] = walk.skips.back();
      walk.skips.pop_back();
      if (size != walk.size) {
        misfit(step, cat("the skip is ", size.height, "x", size.width, ", the hidden state ", walk.size.height, "x",
                         walk.size.width));
      }
      if (walk.channels + channels != step.out_channels) {
        misfit(step, cat("expects a skip of ", step.out_channels - step.in_channels, " channels, gets ", channels));
      }
      break;
    }
    case StepKind::downsample: walk.size = downsampled(program.config, walk.size, Resample::conv); break;
    case StepKind::resnet:
      if (step.resample == Resample::none) break;
      if (up) walk.size = {2 * walk.size.height, 2 * walk.size.width};
      else walk.size = downsampled(program.config, walk.size, Resample::resnet);
      break;
    case StepKind::upsample:
      if (walk.skips.empty()) misfit(step, "no skip is left to take the size from");
      if (program.stages[static_cast<std::size_t>(step.stage)].upsample_to_skip) walk.size = walk.skips.back().second;
      else walk.size = {2 * walk.size.height, 2 * walk.size.width};
      break;
    default: break;
  }
  if (walk.size.height < 1 || walk.size.width < 1) misfit(step, "the latent is too small for so many down-samplings");
  if (walk.size.height > kMaxSide || walk.size.width > kMaxSide) {
    misfit(step,
           cat("the hidden state is ", walk.size.height, "x", walk.size.width, ", at most ", kMaxSide, " a side"));
  }
  if (!embeds) walk.channels = step.out_channels;
}

}  // namespace

const char* step_name(StepKind kind) {
  constexpr const char* kNames[] = {"embed",      "conv_in",  "push",     "pop_concat", "resnet",    "shortcut",
                                    "shell_in",   "attn1",    "attn2",    "ff",         "shell_out", "attention",
                                    "downsample", "upsample", "norm_out", "conv_out"};
  return kNames[static_cast<int>(kind)];
}

const char* unit_name(UnitKind kind) {
  constexpr const char* kNames[] = {"resnet", "transformer", "attention"};
  return kNames[static_cast<int>(kind)];
}

std::vector<Parameter> step_parameters(const Config& c, const std::vector<Stage>& stages, const Step& s) {
  Shapes out;
  const Stage* stage = s.stage < 0 ? nullptr : &stages[static_cast<std::size_t>(s.stage)];
  switch (s.kind) {
    case StepKind::embed: embed_parameters(out, c); break;
    case StepKind::conv_in: conv(out, s.path, s.out_channels, s.in_channels, c.conv_in_kernel); break;
    case StepKind::conv_out: conv(out, s.path, s.out_channels, s.in_channels, c.conv_out_kernel); break;
    case StepKind::norm_out: affine(out, s.path, s.in_channels); break;
    case StepKind::resnet: resnet_parameters(out, c, s); [[fallthrough]];
    case StepKind::shortcut:
      if (s.in_channels != s.out_channels) conv(out, s.path + ".conv_shortcut", s.out_channels, s.in_channels, 1);
      break;
    case StepKind::shell_in:
      affine(out, s.path + ".norm", s.in_channels);
      projection(out, c, s.path + ".proj_in", s.in_channels);
      break;
    case StepKind::shell_out: projection(out, c, s.path + ".proj_out", s.in_channels); break;
    case StepKind::attn1:
      affine(out, s.path + ".norm1", s.in_channels);
      attention_parameters(out, s.path + ".attn1", s.in_channels,
                           stage->only_cross_attention ? stage->context : s.in_channels, false);
      break;
    case StepKind::attn2:
      affine(out, s.path + ".norm2", s.in_channels);
      attention_parameters(out, s.path + ".attn2", s.in_channels, stage->context, false);
      break;
    case StepKind::ff:
      affine(out, s.path + ".norm3", s.in_channels);
      linear(out, s.path + ".ff.net.0.proj", 8 * std::int64_t{s.in_channels}, s.in_channels, true);
      linear(out, s.path + ".ff.net.2", s.in_channels, 4 * std::int64_t{s.in_channels}, true);
      break;
    case StepKind::attention:
      if (stage->attention_norm) affine(out, s.path + ".group_norm", s.in_channels);
      attention_parameters(out, s.path, s.in_channels, s.in_channels, true);
      break;
    case StepKind::downsample:
    case StepKind::upsample: conv(out, s.path + ".conv", s.out_channels, s.in_channels, 3); break;
    case StepKind::push:
    case StepKind::pop_concat: break;
  }
  return out;
}

std::int64_t Program::params() const {
  return std::accumulate(steps.begin(), steps.end(), std::int64_t{0},
                         [](std::int64_t sum, const Step& s) { return sum + s.params; });
}

std::int64_t Program::macs() const {
  return std::accumulate(steps.begin(), steps.end(), std::int64_t{0},
                         [](std::int64_t sum, const Step& s) { return sum + s.macs; });
}

void check_program(Program& program) {
  Walk walk;
  std::int64_t total = 0;
  walk.channels = program.config.in_channels;
  walk.size = {program.geometry.height, program.geometry.width};
  for (Step& step : program.steps) {
    advance(walk, program, step);
    step.height = walk.size.height;
    step.width = walk.size.width;
    step.params = 0;
    for (const Parameter& parameter : step_parameters(program.config, program.stages, step))
      step.params += element_count(parameter);
    step.macs = count_macs(program, step, walk.size);
    if (__builtin_add_overflow(total, step.macs, &total)) misfit(step, "more multiply-accumulates than can be counted");
  }
  if (!walk.skips.empty()) {
    throw input_error(walk.skips.size(), " skips are left at the end; an up layer was dropped without its down layer");
  }
  if (walk.size != Size{program.geometry.height, program.geometry.width}) {
    throw input_error("the output is ", walk.size.height, "x", walk.size.width, " for an input of ",
                      program.geometry.height, "x", program.geometry.width,
                      "; a down-sampler was dropped without its up-sampler, or the size does not divide");
  }
}

Program build_base(const Config& config, Geometry geometry) {
  Program program{config, geometry, {}, {}};
  Geometry& g = program.geometry;
  if (g.height == 0) g.height = config.sample_height > 0 ? config.sample_height : kDefaultLatent;
  if (g.width == 0) g.width = config.sample_width > 0 ? config.sample_width : g.height;
  Builder(config, program).build();
  try {
    check_program(program);
  } catch (const runtime::Error& error) {
    if (config.where.empty()) throw;
    throw runtime::Error(error.code(), cat(config.where, ": ", error.what()));
  }
  return program;
}

void check_latent_size(const Config& config, std::int64_t height, std::int64_t width, const std::string& what) {
  if (height > kMaxSide || width > kMaxSide)
    throw input_error(what, ": ", height, "x", width, " is too large, at most ", kMaxSide, " a side");
  try {
    (void)build_base(config, {static_cast<int>(height), static_cast<int>(width)});
  } catch (const runtime::Error& error) {
    throw input_error(what, ": the U-Net cannot run at ", height, "x", width, ": ", error.what());
  }
}

std::optional<Step> bypassed_layer(const Program& base, const Step& layer) {
  const double scale = base.stages[static_cast<std::size_t>(layer.stage)].output_scale;
  if (layer.in_channels == layer.out_channels && scale == 1.0) return std::nullopt;
  Step shortcut = layer;
  shortcut.kind = StepKind::shortcut;
  return shortcut;
}

std::vector<Unit> find_units(const Program& base, Shell shell) {
  std::vector<Unit> units;
  for (const Step& step : base.steps) {
    if (step.kind == StepKind::resnet && step.resample == Resample::none) {
      units.push_back({step.path, UnitKind::resnet, step.position, step.position, step.params, step.macs});
      if (const auto left = bypassed_layer(base, step)) {
        for (const Parameter& p : step_parameters(base.config, base.stages, *left))
          units.back().params -= element_count(p);
        units.back().macs -= count_macs(base, *left, {step.height, step.width});
      }
    } else if (step.kind == StepKind::attention) {  // a plain one: what a bypass leaves has no weights
      units.push_back({step.path, UnitKind::attention, step.position, step.position, step.params, step.macs});
    } else if (step.kind == StepKind::attn1) {
      units.push_back({step.path, UnitKind::transformer, step.position, step.position, step.params, step.macs});
    } else if (step.kind == StepKind::attn2 || step.kind == StepKind::ff) {
      units.back().last = step.position;
      units.back().params += step.params;
      units.back().macs += step.macs;
    }
  }
  if (shell == Shell::keep) return units;
  for (const ShellGroup& group : find_shells(base, units)) {
    if (group.units.size() != 1) continue;
    Unit& unit = units[static_cast<std::size_t>(group.units.front())];
    for (const int position : {group.shell_in, group.shell_out}) {
      unit.params += base.steps[static_cast<std::size_t>(position)].params;
      unit.macs += base.steps[static_cast<std::size_t>(position)].macs;
    }
  }
  return units;
}

std::vector<ShellGroup> find_shells(const Program& base, const std::vector<Unit>& units) {
  std::vector<ShellGroup> shells;
  for (const Step& step : base.steps) {
    if (step.kind == StepKind::shell_in) {
      ShellGroup group{step.path, {}, step.position, 0};
      for (std::size_t i = 0; i < units.size(); ++i) {
        if (units[i].kind == UnitKind::transformer && starts_with(units[i].layer, step.path + "."))
          group.units.push_back(static_cast<int>(i));
      }
      shells.push_back(std::move(group));
    } else if (step.kind == StepKind::shell_out) {
      shells.back().shell_out = step.position;
    }
  }
  return shells;
}

std::vector<Tap> find_taps(const Program& base) {
  std::map<std::string, int> last;  // module path -> last position that belongs to it
  const auto belongs = [&](const std::string& path, int position) { last[path] = position; };
  for (const Step& step : base.steps) {
    if (step.kind == StepKind::embed || step.kind == StepKind::push || step.kind == StepKind::pop_concat) continue;
    belongs(step.path, step.position);
    if (step.stage >= 0) belongs(base.stages[static_cast<std::size_t>(step.stage)].path, step.position);
  }
  std::vector<Tap> taps;
  for (const auto& [path, position] : last) {
    if (path != "conv_out") taps.push_back({path, position});
  }
  std::sort(taps.begin(), taps.end(),
            [](const Tap& a, const Tap& b) { return std::tie(a.position, a.path) < std::tie(b.position, b.path); });
  return taps;
}

}  // namespace laptopdiff::unet
