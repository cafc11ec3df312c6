#include <torch/types.h>

#include "runtime/error.h"
#include "unet/executor.h"

namespace laptopdiff::unet {
namespace {

using runtime::cat;
using runtime::input_error;

enum class Holds { floats, numbers };  // numbers: floats or integers, such as times and labels

struct Field {
  const char* name;
  at::Tensor Inputs::*member;
  Holds holds;
};
constexpr Field kFields[] = {
    {"sample", &Inputs::sample, Holds::floats},
    {"timestep", &Inputs::timestep, Holds::numbers},
    {"encoder_hidden_states", &Inputs::encoder_hidden_states, Holds::floats},
    {"text_embeds", &Inputs::text_embeds, Holds::floats},
    {"time_ids", &Inputs::time_ids, Holds::numbers},
    {"class_labels", &Inputs::class_labels, Holds::numbers},
    {"timestep_cond", &Inputs::timestep_cond, Holds::floats},
};

template <typename F>
Inputs map_fields(const Inputs& inputs, const F& change) {
  Inputs changed;
  for (const Field& field : kFields) {
    if ((inputs.*field.member).defined()) changed.*field.member = change(inputs.*field.member);
  }
  return changed;
}

void check_shape(const at::Tensor& tensor, const std::vector<std::int64_t>& expected, const std::string& what) {
  bool fits = tensor.dim() == static_cast<std::int64_t>(expected.size());
  for (std::size_t i = 0; fits && i < expected.size(); ++i) {
    fits = expected[i] < 0 || tensor.size(static_cast<std::int64_t>(i)) == expected[i];
  }
  if (!fits) {
    throw input_error(what, " is ", runtime::sizes_text(tensor), ", expected ", runtime::shape_text(expected),
                      " (-1: any); were these inputs made for another model?");
  }
}

// class_labels as Inputs documents them; a label the table does not have would be read past its end.
void check_labels(const at::Tensor& labels, const Config& config, std::int64_t batch, const std::string& where) {
  const std::string what = where + ": `class_labels`";
  if (config.class_embedding == ClassEmbedding::none) {
    // UNet2DConditionModel ignores them, as in diffusers; UNet2DModel fails there too.
    if (labels.defined() && config.model_class == ModelClass::unconditional)
      throw input_error(what, " are given, but this model has no class embeddings");
    return;
  }
  if (!labels.defined()) throw input_error(what, " is needed by this model");
  switch (config.class_embedding) {
    case ClassEmbedding::table:
      check_shape(labels, {batch}, what);
      if (labels.is_floating_point()) throw input_error(what, " must hold integers: rows of the model's table");
      if (labels.lt(0).any().item<bool>() || labels.ge(config.num_class_embeds).any().item<bool>())
        throw input_error(what, " must be 0 to ", config.num_class_embeds - 1, " (num_class_embeds)");
      break;
    case ClassEmbedding::timestep: check_shape(labels, {batch}, what); break;
    case ClassEmbedding::projection:
    case ClassEmbedding::simple_projection: check_shape(labels, {batch, config.class_projection_dim}, what); break;
    case ClassEmbedding::identity: check_shape(labels, {batch, config.time_embed_dim}, what); break;
    case ClassEmbedding::none: break;
  }
}

void check_text_time(const Inputs& in, const Config& config, std::int64_t batch, const std::string& where) {
  if (!in.text_embeds.defined() || !in.time_ids.defined())
    throw input_error(where, ": `text_embeds` and `time_ids` are needed by this model");
  check_shape(in.time_ids, {batch, -1}, where + ": `time_ids`");
  const std::int64_t width = config.add_projection_dim - in.time_ids.size(1) * config.addition_time_embed_dim;
  if (width < 0) {
    throw input_error(where, ": `time_ids` is ", runtime::sizes_text(in.time_ids), "; ", in.time_ids.size(1), " x ",
                      config.addition_time_embed_dim, " does not fit projection_class_embeddings_input_dim ",
                      config.add_projection_dim);
  }
  check_shape(in.text_embeds, {batch, width}, where + ": `text_embeds`");
}

// What a model has no use for was made for another one.
void refuse_useless(const Inputs& in, const Config& config, const std::string& where) {
  const auto refuse = [&](const at::Tensor& tensor, const char* name, const char* needed_by) {
    if (tensor.defined()) throw input_error(where, ": `", name, "` is given, but this model has no ", needed_by);
  };
  // UNet2DConditionModel without any transformer still takes its text, as in diffusers, and leaves it alone.
  if (config.model_class == ModelClass::unconditional)
    refuse(in.encoder_hidden_states, "encoder_hidden_states", "cross-attention");
  if (!config.text_time) {
    refuse(in.text_embeds, "text_embeds", "`addition_embed_type` text_time");
    refuse(in.time_ids, "time_ids", "`addition_embed_type` text_time");
  }
}

// A mask of booleans would pass as the times 0 and 1.
void check_type(const Field& field, const at::Tensor& tensor, const std::string& where) {
  if (tensor.is_floating_point()) return;
  if (field.holds == Holds::numbers && tensor.scalar_type() != at::kBool) return;
  throw input_error(where, ": `", field.name, "` is ", runtime::dtype_name(runtime::dtype_of(tensor)), ", expected ",
                    field.holds == Holds::floats ? "floats" : "integers or floats");
}

void check_inputs(const Inputs& in, const Config& config, const std::string& where) {
  const std::int64_t batch = in.sample.size(0);
  if (batch == 0) throw input_error(where, ": `sample` has no rows; an empty calibration set cannot be scored");
  check_shape(in.sample, {batch, config.in_channels, -1, -1}, where + ": `sample`");
  if (in.sample.size(2) == 0 || in.sample.size(3) == 0) {
    throw input_error(where, ": `sample` is ", runtime::sizes_text(in.sample), "; its height and width must not be 0");
  }
  check_shape(in.timestep, {batch}, where + ": `timestep`");
  if (const int width = config.context_width(); width > 0) {
    if (!in.encoder_hidden_states.defined())
      throw input_error(where, ": `encoder_hidden_states` [B, T, ", width, "] is missing");
    check_shape(in.encoder_hidden_states, {batch, -1, width}, where + ": `encoder_hidden_states`");
  }
  if (config.text_time) check_text_time(in, config, batch, where);
  refuse_useless(in, config, where);
  check_labels(in.class_labels, config, batch, where);
  if (in.timestep_cond.defined()) {
    if (config.time_cond_proj_dim == 0)
      throw input_error(where, ": `timestep_cond` is given, but the model has no `time_cond_proj_dim`");
    check_shape(in.timestep_cond, {batch, config.time_cond_proj_dim}, where + ": `timestep_cond`");
  }
  check_latent_size(config, in.sample.size(2), in.sample.size(3), where + ": `sample`");
  for (const Field& field : kFields) {
    const at::Tensor& tensor = in.*field.member;
    if (tensor.defined()) check_type(field, tensor, where);
    if (tensor.defined() && tensor.numel() == 0) {
      throw input_error(where, ": `", field.name, "` is ", runtime::sizes_text(tensor),
                        "; none of its dimensions may be 0");
    }
    if (tensor.defined() && tensor.is_floating_point() && !at::isfinite(tensor).all().item<bool>())
      throw runtime::non_finite_error(where, ": `", field.name, "` holds NaN or Inf");
    if (tensor.defined() && (tensor.dim() == 0 || tensor.size(0) != batch)) {
      throw input_error(where, ": `", field.name, "` has ", runtime::sizes_text(tensor), ", expected ", batch,
                        " rows as `sample`");
    }
  }
}

}  // namespace

Inputs inputs_from(const TensorMap& tensors, const Config& config, const std::string& where) {
  Inputs inputs;
  std::vector<std::string> known{"noise"};
  for (const Field& field : kFields) known.emplace_back(field.name);
  for (const auto& [name, tensor] : tensors) {
    if (name == "noise" || name == "target") continue;  // calibration sets carry them beside the inputs
    bool used = false;
    for (const Field& field : kFields) {
      if (name != field.name) continue;
      inputs.*field.member = tensor;
      used = true;
    }
    if (!used)
      throw input_error(where, ": unknown tensor `", name.substr(0, 100), "`", runtime::did_you_mean(name, known));
  }
  for (const char* required : {"sample", "timestep"}) {
    if (!tensors.contains(required)) throw input_error(where, ": tensor `", required, "` is missing");
  }
  if (inputs.sample.dim() != 4) check_shape(inputs.sample, {-1, config.in_channels, -1, -1}, where + ": `sample`");
  check_inputs(inputs, config, where);
  return inputs;
}

TensorMap inputs_map(const Inputs& inputs) {
  TensorMap map;
  for (const Field& field : kFields) {
    if ((inputs.*field.member).defined()) map[field.name] = inputs.*field.member;
  }
  return map;
}

Inputs slice(const Inputs& inputs, std::int64_t begin, std::int64_t end) {
  return map_fields(inputs, [&](const at::Tensor& tensor) { return tensor.slice(0, begin, end); });
}

Inputs clone(const Inputs& inputs) {
  return map_fields(inputs, [](const at::Tensor& tensor) { return tensor.clone(); });
}

Inputs to(const Inputs& inputs, at::ScalarType dtype, at::Device device) {
  Inputs moved = map_fields(inputs, [&](const at::Tensor& tensor) {
    return tensor.is_floating_point() ? tensor.to(device, dtype) : tensor.to(device);
  });
  // In bf16 they would be other times and labels; what is no look-up or sinusoid the executor casts itself.
  for (const auto member : {&Inputs::timestep, &Inputs::time_ids, &Inputs::class_labels}) {
    if ((inputs.*member).defined()) moved.*member = (inputs.*member).to(device);
  }
  return moved;
}

}  // namespace laptopdiff::unet
