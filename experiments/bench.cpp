#include "experiments/bench.h"

#include <torch/cuda.h>
#include <torch/types.h>

#include <cmath>

#include "runtime/error.h"
#include "runtime/random.h"

namespace laptopdiff::experiments {
namespace {

at::Tensor random_tensor(const std::vector<std::int64_t>& shape, std::uint64_t sample, double scale = 1) {
  at::Tensor values = at::empty(shape, at::kFloat);
  runtime::Stream stream(0, runtime::Purpose::test, 0, sample);
  stream.fill_normal({values.data_ptr<float>(), static_cast<std::size_t>(values.numel())});
  return values * scale;
}

}  // namespace

runtime::TensorMap random_weights(const unet::Program& program, at::ScalarType dtype, at::Device device) {
  const auto f32 = at::TensorOptions(at::kFloat).device(device);
  runtime::TensorMap weights;
  for (const unet::Step& step : program.steps) {
    for (const unet::Parameter& p : unet::step_parameters(program.config, program.stages, step)) {
      std::int64_t fan_in = 1;
      for (std::size_t i = 1; i < p.shape.size(); ++i) fan_in *= p.shape[i];
      const at::Tensor values = p.shape.size() > 1
                                    ? at::randn(p.shape, f32).div_(std::sqrt(static_cast<double>(fan_in)))
                                    : at::full(p.shape, p.name.ends_with("weight") ? 1.0 : 0.0, f32);
      weights[p.name] = values.to(dtype);  // one by one, so that the peak is that of the type
    }
  }
  return weights;
}

unet::Inputs random_inputs(const unet::Program& program, std::int64_t batch, std::uint64_t salt) {
  const unet::Config& c = program.config;
  unet::Inputs inputs;
  inputs.sample = random_tensor({batch, c.in_channels, program.geometry.height, program.geometry.width}, salt);
  inputs.timestep = at::full({batch}, static_cast<std::int64_t>(500 + salt % 400), at::kLong);
  for (const unet::Stage& stage : program.stages) {
    if (stage.context > 0)
      inputs.encoder_hidden_states = random_tensor({batch, program.geometry.tokens, stage.context}, salt + 1);
  }
  if (c.text_time) {
    inputs.time_ids = at::full({batch, 6}, 1024.0);
    inputs.text_embeds = random_tensor({batch, c.add_projection_dim - 6 * c.addition_time_embed_dim}, salt + 2);
  }
  if (c.class_embedding == unet::ClassEmbedding::table) inputs.class_labels = at::zeros({batch}, at::kLong);
  else if (c.class_embedding != unet::ClassEmbedding::none)
    throw runtime::usage_error("bench: class embeddings other than a table are not set up here");
  return inputs;
}

BenchSubject open_subject(const BenchOptions& options, const CommonOptions& common) {
  unet::Spec spec = unet::load_architecture(options.model);
  const unet::Geometry geometry{static_cast<int>(options.latent), static_cast<int>(options.latent),
                                static_cast<int>(options.tokens)};
  BenchSubject subject;
  subject.base = unet::build_base(spec.base, geometry);
  if (!options.spec.empty()) spec = load_spec_for(options.spec, spec);
  subject.program = unet::prune(subject.base, spec);
  const bool only_config = std::filesystem::path(options.model).extension() == ".json";
  const runtime::TensorMap weights = only_config
                                         ? random_weights(subject.base, common.torch_dtype(), common.torch_device())
                                         : unet::load_model(options.model).weights;
  subject.weights = unet::convert(weights, common.torch_dtype(), common.torch_device());
  return subject;
}

void wait_for(at::Device device) {
  if (device.is_cuda()) torch::cuda::synchronize(device.index());
}

}  // namespace laptopdiff::experiments
