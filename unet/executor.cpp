// Shapes: B batch, C channels, H/W image, N = HW tokens, T text tokens, E time embedding width.
#include "unet/executor.h"

#include <torch/types.h>

#include <cmath>

#include "runtime/error.h"
#include "unet/cpu_attention.h"
#include "unet/cpu_group_norm.h"
#include "unet/forward_graphs.h"
#include "unet/gpu_ops.h"
#include "unet/weights.h"

namespace laptopdiff::unet {
namespace {

using runtime::cat;
using runtime::input_error;

constexpr double kShellNormEps = 1e-6;  // Transformer2DModel hard-wires it, whatever norm_eps says
constexpr double kLayerNormEps = 1e-5;
constexpr double kMaxPeriod = 10000;

at::Tensor apply(Activation kind, const at::Tensor& x) {
  switch (kind) {
    case Activation::silu: return at::silu(x);
    case Activation::gelu: return at::gelu(x);
    case Activation::mish: return at::mish(x);
    case Activation::relu: return at::relu(x);
  }
  return x;
}

// diffusers' get_timestep_embedding: [B] -> [B, width], in f32.
at::Tensor sinusoid(const Config& c, const at::Tensor& values, int width) {
  const int half = width / 2;
  const auto options = at::TensorOptions().dtype(at::kFloat).device(values.device());
  at::Tensor exponent = at::arange(0, half, options) * -std::log(kMaxPeriod);
  const at::Tensor frequencies = at::exp(exponent / (half - c.freq_shift));
  const at::Tensor angles = values.to(at::kFloat).unsqueeze(1) * frequencies.unsqueeze(0);  // [B, half]
  const at::Tensor sine = at::sin(angles), cosine = at::cos(angles);
  at::Tensor embedding = c.flip_sin_to_cos ? at::cat({cosine, sine}, 1) : at::cat({sine, cosine}, 1);
  return width % 2 == 1 ? at::constant_pad_nd(embedding, {0, 1}) : embedding;
}

// The path that a step's parameter names start with.
std::string prefix_of(const Step& step) { return step.kind == StepKind::embed ? "" : step.path + "."; }

// Different for any two variants of one base.
std::string steps_text(const Program& variant) {
  std::string text;
  for (const Step& step : variant.steps) text += cat(step.position, ":", static_cast<int>(step.kind), " ");
  return text;
}

void need(const at::Tensor& tensor, const char* name, const Config& config, const char* why) {
  if (!tensor.defined()) throw input_error("input `", name, "` is missing: this ", config.class_name(), " has ", why);
}

}  // namespace

Executor::Executor(const Program& program, const TensorMap& weights) : program_(program) {
  const TensorMap selected = select_weights(program, weights, "weights");
  int last = 0;
  for (const Step& step : program.steps) last = std::max(last, step.position);
  bound_.resize(static_cast<std::size_t>(last) + 1);
  for (const Step& step : program.steps) {
    const std::size_t prefix = prefix_of(step).size();
    for (const Parameter& parameter : step_parameters(program.config, program.stages, step)) {
      const at::Tensor& tensor = selected.at(parameter.name);
      dtype_ = tensor.scalar_type();
      bound_[static_cast<std::size_t>(step.position)][parameter.name.substr(prefix)] = tensor;
    }
  }
}

const at::Tensor& Executor::weight(const Step& step, const std::string& name) const {
  const auto& own = bound_[static_cast<std::size_t>(step.position)];
  const auto found = own.find(name);
  TORCH_INTERNAL_ASSERT(found != own.end(), step.path, ": no weight ", name);
  return found->second;
}

at::Tensor Executor::bias(const Step& step, const std::string& prefix) const {
  const auto& own = bound_[static_cast<std::size_t>(step.position)];
  const auto found = own.find(prefix + "bias");
  return found == own.end() ? at::Tensor() : found->second;
}

at::Tensor Executor::linear(const Step& step, const std::string& name, const at::Tensor& input,
                            const at::Tensor& residual) const {
  const at::Tensor& matrix = weight(step, name + ".weight");
  const at::Tensor shift = bias(step, name + ".");
  if (matrix.is_mkldnn())
    return packed_linear(input, matrix, shift, residual.defined() ? Epilogue::add : Epilogue::none, residual);
  at::Tensor output = shift.defined() ? at::linear(input, matrix, shift) : at::linear(input, matrix);
  if (!residual.defined()) return output;
  return layout_ == Layout::gpu ? output.add_(residual) : output + residual;
}

ConvShape Executor::conv_shape(const Step& step, const at::Tensor& kernel) const {
  ConvShape shape;
  shape.stride = step.kind == StepKind::downsample ? 2 : 1;
  shape.padding = shape.stride == 1 || program_.config.downsample_padding == 1 ? (kernel.size(2) - 1) / 2 : 0;
  return shape;
}

at::Tensor Executor::conv(const Step& step, const std::string& name, const at::Tensor& image,
                          const at::Tensor& residual) const {
  const std::string prefix = name.empty() ? "" : name + ".";
  const at::Tensor& kernel = weight(step, prefix + "weight");
  const at::Tensor shift = bias(step, prefix);
  const ConvShape shape = conv_shape(step, kernel);
  if (layout_ == Layout::cpu) return packed_conv(image, kernel, shift, shape, residual);
  if (layout_ == Layout::gpu) return gpu_conv(image, kernel, shift, shape.stride, shape.padding, residual);
  const at::Tensor output = at::conv2d(image, kernel, shift, shape.stride, shape.padding);
  return residual.defined() ? residual + output : output;
}

at::Tensor Executor::upsample(const Step& step, const at::Tensor& image, std::int64_t height,
                              std::int64_t width) const {
  const auto& own = bound_[static_cast<std::size_t>(step.position)];
  const bool twice = height == 2 * image.size(2) && width == 2 * image.size(3);
  if (!twice || own.count(folded_name(0)) == 0)
    return conv(step, "conv", at::upsample_nearest2d(image, {height, width}));
  UpsampleKernels kernels;
  for (std::size_t i = 0; i < kernels.size(); ++i) kernels[i] = own.at(folded_name(i));
  return packed_upsample(image, kernels, bias(step, "conv."));
}

at::Tensor Executor::group_norm(const Step& step, const std::string& name, const at::Tensor& image,
                                GroupNorm norm) const {
  const std::string prefix = name.empty() ? "" : name + ".";
  norm.gain = weight(step, prefix + "weight");
  norm.bias = weight(step, prefix + "bias");
  if (layout_ == Layout::cpu) return cpu_group_norm(image, norm);
  if (layout_ == Layout::gpu) return gpu_group_norm(image, norm);
  const auto pixelwise = [](const at::Tensor& x) { return x.unsqueeze(2).unsqueeze(3); };  // [B, C, 1, 1]
  at::Tensor normed = at::group_norm(norm.add.defined() ? image + pixelwise(norm.add) : image, norm.groups, norm.gain,
                                     norm.bias, norm.eps);
  if (norm.scale.defined()) normed = normed * (1 + pixelwise(norm.scale)) + pixelwise(norm.shift);
  return norm.silu ? at::silu(normed) : normed;
}

at::Tensor Executor::norm_and_activate(const Step& step, const std::string& name, const at::Tensor& image,
                                       GroupNorm norm, Activation activation) const {
  norm.silu = activation == Activation::silu;
  const at::Tensor normed = group_norm(step, name, image, norm);
  return norm.silu ? normed : apply(activation, normed);
}

at::Tensor Executor::activate(const at::Tensor& x) const { return apply(program_.config.act, x); }

State Executor::start(const Inputs& inputs) const {
  const Config& c = program_.config;
  State state;
  state.hidden = (c.center_input_sample ? 2 * inputs.sample - 1.0 : inputs.sample).to(dtype_);
  if (layout_ != Layout::plain) state.hidden = state.hidden.contiguous(at::MemoryFormat::ChannelsLast);
  state.height = state.hidden.size(2);
  state.width = state.hidden.size(3);
  if (inputs.encoder_hidden_states.defined()) state.context = inputs.encoder_hidden_states.to(dtype_);
  embed(inputs, state);
  return state;
}

void Executor::embed(const Inputs& inputs, State& state) const {
  const Config& c = program_.config;
  const Step& step = program_.steps.front();
  need(inputs.timestep, "timestep", c, "a time embedding");
  at::Tensor projected = sinusoid(c, inputs.timestep, c.time_channels).to(dtype_);  // [B, C0]
  if (inputs.timestep_cond.defined()) {
    projected = projected + linear(step, "time_embedding.cond_proj", inputs.timestep_cond.to(dtype_));
  }
  at::Tensor embedding = two_linears(step, "time_embedding", projected);  // [B, E]
  if (c.time_embedding_post_act) embedding = apply(c.time_post_act, embedding);
  if (c.class_embedding != ClassEmbedding::none) {
    const at::Tensor of_class = class_embedding(step, inputs);
    embedding = c.class_embeddings_concat ? at::cat({embedding, of_class}, 1) : embedding + of_class;
  }
  if (c.text_time) {
    need(inputs.text_embeds, "text_embeds", c, "text_time embeddings");
    need(inputs.time_ids, "time_ids", c, "text_time embeddings");
    const std::int64_t batch = inputs.batch();
    const at::Tensor times = sinusoid(c, inputs.time_ids.flatten(), c.addition_time_embed_dim).reshape({batch, -1});
    const at::Tensor added = at::cat({inputs.text_embeds.to(dtype_), times.to(dtype_)}, 1);  // pooled text first
    embedding = embedding + two_linears(step, "add_embedding", added);
  }
  if (c.time_embed_act) embedding = apply(c.time_act, embedding);
  state.embedding = embedding;
  state.embedding_act = activate(embedding);
}

at::Tensor Executor::two_linears(const Step& step, const std::string& name, const at::Tensor& input) const {
  // Only UNet2DConditionModel hands act_fn to its time embedding (and the timestep-like class embedding); the rest is
  // SiLU.
  const Config& c = program_.config;
  const bool follows =
      c.model_class == ModelClass::conditional &&
      (name == "time_embedding" || (name == "class_embedding" && c.class_embedding == ClassEmbedding::timestep));
  const at::Tensor hidden = linear(step, name + ".linear_1", input);
  return linear(step, name + ".linear_2", follows ? activate(hidden) : at::silu(hidden));
}

at::Tensor Executor::class_embedding(const Step& step, const Inputs& inputs) const {
  const Config& c = program_.config;
  need(inputs.class_labels, "class_labels", c, "class embeddings");
  switch (c.class_embedding) {
    case ClassEmbedding::table:
      return at::embedding(weight(step, "class_embedding.weight"), inputs.class_labels.to(at::kLong));
    case ClassEmbedding::timestep:
      return two_linears(step, "class_embedding", sinusoid(c, inputs.class_labels, c.time_channels).to(dtype_));
    case ClassEmbedding::projection: return two_linears(step, "class_embedding", inputs.class_labels.to(dtype_));
    case ClassEmbedding::simple_projection: return linear(step, "class_embedding", inputs.class_labels.to(dtype_));
    case ClassEmbedding::identity:
    case ClassEmbedding::none: break;
  }
  return inputs.class_labels.to(dtype_);
}

void Executor::run(const Step& step, State& state) const {
  const Config& c = program_.config;
  switch (step.kind) {
    case StepKind::embed: break;  // done by start()
    case StepKind::conv_in: state.hidden = conv(step, "", state.hidden); break;
    case StepKind::push: state.skips.push_back(state.hidden); break;
    case StepKind::pop_concat:
      state.hidden = at::cat({state.hidden, state.skips.back()}, 1);
      state.skips.pop_back();
      break;
    case StepKind::resnet: state.hidden = resnet(step, state); break;
    case StepKind::shortcut: state.hidden = shortcut(step, state.hidden); break;
    case StepKind::shell_in: shell_in(step, state); break;
    case StepKind::attn1:
    case StepKind::attn2: state.hidden = token_attention(step, state); break;
    case StepKind::ff: state.hidden = feed_forward(step, state.hidden); break;
    case StepKind::shell_out: shell_out(step, state); break;
    case StepKind::attention: state.hidden = plain_attention(step, state.hidden); break;
    case StepKind::downsample:
      state.hidden = conv(step, "conv",
                          c.downsample_padding == 0 ? at::constant_pad_nd(state.hidden, {0, 1, 0, 1}) : state.hidden);
      break;
    case StepKind::upsample: {
      const bool to_skip = stage(step).upsample_to_skip;
      const std::int64_t height = to_skip ? state.skips.back().size(2) : 2 * state.hidden.size(2);
      const std::int64_t width = to_skip ? state.skips.back().size(3) : 2 * state.hidden.size(3);
      state.hidden = upsample(step, state.hidden, height, width);
      break;
    }
    case StepKind::norm_out: {
      // UNet2DModel ignores act_fn here.
      const Activation activation = c.model_class == ModelClass::conditional ? c.act : Activation::silu;
      state.hidden = norm_and_activate(step, "", state.hidden, {c.norm_groups, c.norm_eps}, activation);
      break;
    }
    case StepKind::conv_out: state.hidden = conv(step, "", state.hidden).contiguous(); break;
  }
}

at::Tensor Executor::resnet(const Step& step, const State& state) const {
  const Config& c = program_.config;
  const Stage& own = stage(step);
  at::Tensor input = state.hidden;
  at::Tensor hidden = norm_and_activate(step, "norm1", input, {c.norm_groups, c.norm_eps}, c.act);
  if (step.resample == Resample::resnet) {
    const bool up = step.path.find("upsamplers") != std::string::npos;
    const auto resize = [&](const at::Tensor& x) {
      return up ? at::upsample_nearest2d(x, {2 * x.size(2), 2 * x.size(3)}) : at::avg_pool2d(x, {2, 2}, {2, 2});
    };
    input = resize(input);
    hidden = resize(hidden);
  }
  hidden = conv(step, "conv1", hidden);
  const at::Tensor time =
      linear(step, "time_emb_proj", own.skip_time_act ? state.embedding : state.embedding_act);  // [B, C] or [B, 2C]
  GroupNorm norm{c.norm_groups, c.norm_eps};
  if (c.time_scale_shift == TimeScaleShift::shift) {
    norm.add = time;
  } else {
    const auto scale_shift = time.chunk(2, 1);
    norm.scale = scale_shift[0];
    norm.shift = scale_shift[1];
  }
  hidden = norm_and_activate(step, "norm2", hidden, norm, c.act);
  const at::Tensor skip = step.in_channels == step.out_channels ? input : conv(step, "conv_shortcut", input);
  hidden = conv(step, "conv2", hidden, skip);
  return own.output_scale == 1.0 ? hidden : hidden / own.output_scale;
}

at::Tensor Executor::shortcut(const Step& step, const at::Tensor& image) const {
  const at::Tensor skip = step.in_channels == step.out_channels ? image : conv(step, "conv_shortcut", image);
  const double scale = stage(step).output_scale;
  return scale == 1.0 ? skip : skip / scale;
}

void Executor::shell_in(const Step& step, State& state) const {
  const Config& c = program_.config;
  state.residual = state.hidden;
  state.height = state.hidden.size(2);
  state.width = state.hidden.size(3);
  at::Tensor hidden = group_norm(step, "norm", state.hidden, {c.norm_groups, kShellNormEps});
  if (!c.linear_projection) hidden = conv(step, "proj_in", hidden);
  hidden = hidden.flatten(2).transpose(1, 2);  // [B, N, C]
  state.hidden = c.linear_projection ? linear(step, "proj_in", hidden) : hidden.contiguous();
}

void Executor::shell_out(const Step& step, State& state) const {
  const bool matrix = program_.config.linear_projection;
  at::Tensor hidden = matrix ? linear(step, "proj_out", state.hidden) : state.hidden;
  hidden = hidden.transpose(1, 2).reshape({hidden.size(0), hidden.size(2), state.height, state.width});  // [B, C, H, W]
  state.hidden = matrix ? hidden + state.residual : conv(step, "proj_out", hidden, state.residual);
  state.residual = at::Tensor();
}

std::array<at::Tensor, 3> Executor::queries_keys_values(const Step& step, const std::string& prefix,
                                                        const at::Tensor& queries, const at::Tensor& keys) const {
  if (layout_ != Layout::gpu) {
    return {linear(step, prefix + "to_q", queries), linear(step, prefix + "to_k", keys),
            linear(step, prefix + "to_v", keys)};
  }
  if (queries.is_same(keys)) {
    const auto parts = linear(step, prefix + "to_qkv", queries).chunk(3, -1);
    return {parts[0], parts[1], parts[2]};
  }
  const auto of_text = linear(step, prefix + "to_kv", keys).chunk(2, -1);
  return {linear(step, prefix + "to_q", queries), of_text[0], of_text[1]};
}

at::Tensor Executor::attend(const Step& step, const std::string& name, const at::Tensor& queries,
                            const at::Tensor& keys, const at::Tensor& residual) const {
  const std::string prefix = name.empty() ? "" : name + ".";
  const std::int64_t heads = stage(step).heads;
  const auto [q, k, v] = queries_keys_values(step, prefix, queries, keys);
  at::Tensor mixed;
  if (layout_ == Layout::cpu && has_cpu_attention(dtype_, q.size(2) / heads)) {
    mixed = cpu_attention(q, k, v, heads);
  } else {
    const auto split = [&](const at::Tensor& x) {  // [B, N, C] -> [B, heads, N, C / heads]
      return x.view({x.size(0), x.size(1), heads, x.size(2) / heads}).transpose(1, 2);
    };
    const at::Tensor product = layout_ == Layout::gpu ? gpu_attention(split(q), split(k), split(v))
                                                      : at::scaled_dot_product_attention(split(q), split(k), split(v));
    mixed = product.transpose(1, 2).reshape(queries.sizes());
  }
  return linear(step, prefix + "to_out.0", mixed, residual);
}

at::Tensor Executor::token_attention(const Step& step, const State& state) const {
  const bool first = step.kind == StepKind::attn1;
  const std::string norm = first ? "norm1" : "norm2";
  const at::Tensor tokens = at::layer_norm(state.hidden, {step.in_channels}, weight(step, norm + ".weight"),
                                           weight(step, norm + ".bias"), kLayerNormEps);
  const bool cross = !first || stage(step).only_cross_attention;
  if (cross) need(state.context, "encoder_hidden_states", program_.config, "cross-attention");
  return attend(step, first ? "attn1" : "attn2", tokens, cross ? state.context : tokens, state.hidden);
}

at::Tensor Executor::feed_forward(const Step& step, const at::Tensor& tokens) const {
  const at::Tensor normed = at::layer_norm(tokens, {step.in_channels}, weight(step, "norm3.weight"),
                                           weight(step, "norm3.bias"), kLayerNormEps);
  if (layout_ == Layout::cpu) {
    const at::Tensor gate = packed_linear(normed, weight(step, "ff.gate.weight"), weight(step, "ff.gate.bias"),
                                          Epilogue::gelu);  // [B, N, 4C]
    const at::Tensor product =
        packed_linear(normed, weight(step, "ff.value.weight"), weight(step, "ff.value.bias"), Epilogue::multiply, gate);
    return linear(step, "ff.net.2", product, tokens);
  }
  const at::Tensor both = linear(step, "ff.net.0.proj", normed);  // [B, N, 8C]
  if (layout_ == Layout::gpu) return linear(step, "ff.net.2", gpu_geglu(both), tokens);
  const auto halves = both.chunk(2, -1);  // value, gate
  return linear(step, "ff.net.2", halves[0] * at::gelu(halves[1]), tokens);
}

at::Tensor Executor::plain_attention(const Step& step, const at::Tensor& image) const {
  const Stage& own = stage(step);
  const at::Tensor normed =
      own.attention_norm ? group_norm(step, "group_norm", image, {own.attention_groups, program_.config.norm_eps})
                         : image;
  const at::Tensor tokens = normed.flatten(2).transpose(1, 2).contiguous();  // [B, N, C]
  const at::Tensor mixed = attend(step, "", tokens, tokens, {}).transpose(1, 2).reshape(image.sizes());
  return own.output_scale == 1.0 ? mixed + image : (mixed + image) / own.output_scale;
}

at::Tensor Executor::forward(const Inputs& inputs) const { return forward(program_, inputs); }

at::Tensor Executor::forward(const Program& variant, const Inputs& inputs) const {
  const auto plain = [&](const Inputs& own) {
    State state = start(own);
    for (const Step& step : variant.steps) run(step, state);
    return state.hidden;
  };
  return graphs_ ? graphs_->run(steps_text(variant), inputs, plain) : plain(inputs);
}

at::Tensor Executor::forward(const Inputs& inputs, const std::vector<Tap>& taps, const TapSink& sink) const {
  State state = start(inputs);
  auto tap = taps.begin();
  for (const Step& step : program_.steps) {
    // A tap whose own step was removed reports the hidden state that stands at its position.
    for (; tap != taps.end() && tap->position < step.position; ++tap) sink(tap->path, state.hidden);
    run(step, state);
  }
  for (; tap != taps.end(); ++tap) sink(tap->path, state.hidden);
  return state.hidden;
}

}  // namespace laptopdiff::unet
