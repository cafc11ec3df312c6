#include "diffusion/sampler.h"

#include <torch/types.h>

#include <algorithm>
#include <cmath>

#include "runtime/error.h"
#include "runtime/random.h"
#include "runtime/tensors.h"

namespace laptopdiff::diffusion {
namespace {

at::Tensor normal_tensor(runtime::Stream stream, const std::vector<std::int64_t>& shape) {
  at::Tensor out = at::empty(shape, at::kFloat);
  stream.fill_normal({out.data_ptr<float>(), static_cast<std::size_t>(out.numel())});
  return out;
}

void check_options(const SampleOptions& o) {
  if (o.count < 1 || o.batch < 1) {
    throw runtime::usage_error("sample: count ", o.count, " and batch ", o.batch, " must be at least 1");
  }
  if (!(o.eta >= 0 && o.eta <= 1)) throw runtime::usage_error("sample: eta is ", o.eta, ", expected 0 to 1");
  if (!std::isfinite(o.guidance)) throw runtime::usage_error("sample: guidance must be a finite number");
  if (!(o.guidance_rescale >= 0 && o.guidance_rescale <= 1)) {
    throw runtime::usage_error("sample: guidance rescale is ", o.guidance_rescale, ", expected 0 to 1");
  }
  TORCH_CHECK(o.shape.size() == 3, "sample: SampleOptions::shape must be {C, h, w}");
  if (!o.latents.defined()) return;
  const std::vector<std::int64_t> expected = {o.count, o.shape[0], o.shape[1], o.shape[2]};
  if (o.latents.sizes() != expected || !o.latents.is_floating_point()) {
    throw runtime::input_error("sample: latents are ", runtime::sizes_text(o.latents), ", expected floats ",
                               runtime::shape_text(expected), " for this model and count");
  }
}

at::Tensor starting_noise(const SampleOptions& o, std::int64_t first, std::int64_t count) {
  if (o.latents.defined()) return o.latents.narrow(0, first, count).to(o.device, at::kFloat);
  std::vector<at::Tensor> rows;
  for (std::int64_t i = 0; i < count; ++i) rows.push_back(initial_noise(o.seed, first + i, o.shape));
  return at::stack(rows).to(o.device);
}

StepNoise batch_noise(const SampleOptions& o, std::int64_t first, std::int64_t count, std::int64_t index) {
  return [&o, first, count, index] {
    std::vector<at::Tensor> rows;
    for (std::int64_t i = 0; i < count; ++i) rows.push_back(step_noise(o.seed, index, first + i, o.shape));
    return at::stack(rows).to(o.device);
  };
}

at::Tensor both_rows(const at::Tensor& unconditional, const at::Tensor& conditional) {
  if (!conditional.defined() || !unconditional.defined()) return conditional;
  return at::cat({unconditional.expand_as(conditional), conditional});
}

// The context of a whole batch: under guidance the unconditional rows, then the conditional ones.
Context joined(const Conditioning& c) {
  return {both_rows(c.unconditional.encoder_hidden_states, c.conditional.encoder_hidden_states),
          both_rows(c.unconditional.text_embeds, c.conditional.text_embeds),
          both_rows(c.unconditional.time_ids, c.conditional.time_ids),
          both_rows(c.unconditional.class_labels, c.conditional.class_labels)};
}

void check_finite(const at::Tensor& output, std::int64_t first, std::int64_t index, double timestep) {
  const at::Tensor finite = at::isfinite(output).flatten(1).all(1);
  if (finite.all().item<bool>()) return;
  const auto row = finite.to(at::kInt).argmin().item<std::int64_t>();
  throw runtime::non_finite_error("sample: the network's output for image ", first + row, " at step ", index,
                                  " (timestep ", timestep,
                                  ") is not finite; try --dtype f32, and check the weights with `inspect`");
}

// Both halves' outputs -> one.
at::Tensor guided_output(const at::Tensor& both, const SampleOptions& o) {
  const auto halves = both.chunk(2);
  const at::Tensor guided = halves[0] + o.guidance * (halves[1] - halves[0]);
  if (o.guidance_rescale == 0) return guided;
  const auto deviation = [](const at::Tensor& x) { return x.flatten(1).std(1).view({-1, 1, 1, 1}); };
  const at::Tensor rescaled = guided * (deviation(halves[1]) / deviation(guided));
  return o.guidance_rescale * rescaled + (1 - o.guidance_rescale) * guided;
}

struct Batch {
  std::int64_t first = 0, count = 0;
};

at::Tensor run_batch(Scheduler& scheduler, const Denoiser& denoise, const Conditioning& conditioning, const Batch& b,
                     const SampleOptions& o) {
  const bool guided = o.guidance > 1 && conditioning.unconditional.encoder_hidden_states.defined();
  const Context context = guided ? joined(conditioning) : conditioning.conditional;
  at::Tensor x = starting_noise(o, b.first, b.count) * scheduler.init_noise_sigma();
  for (std::int64_t i = 0; i < static_cast<std::int64_t>(scheduler.timesteps().size()); ++i) {
    const double t = scheduler.timesteps()[static_cast<std::size_t>(i)];
    const at::Tensor input = scheduler.scale_model_input(x, i);
    at::Tensor output = denoise(guided ? at::cat({input, input}) : input, t, context).to(at::kFloat);
    if (guided) output = guided_output(output, o);
    check_finite(output, b.first, i, t);
    x = scheduler.step(output, i, x, {o.eta, batch_noise(o, b.first, b.count, i)});
  }
  return x;
}

}  // namespace

at::Tensor initial_noise(std::uint64_t seed, std::int64_t image, const std::vector<std::int64_t>& shape) {
  return normal_tensor(runtime::Stream(seed, runtime::Purpose::initial_latents, 0, static_cast<std::uint64_t>(image)),
                       shape);
}

at::Tensor step_noise(std::uint64_t seed, std::int64_t index, std::int64_t image,
                      const std::vector<std::int64_t>& shape) {
  return normal_tensor(runtime::Stream(seed, runtime::Purpose::sampler_noise, static_cast<std::uint64_t>(index),
                                       static_cast<std::uint64_t>(image)),
                       shape);
}

void sample(Scheduler& scheduler, const Denoiser& denoise, const ConditioningOf& conditioning,
            const SampleOptions& options, const BatchDone& done) {
  const c10::InferenceMode inference;
  check_options(options);
  scheduler.set_timesteps(options.steps);
  for (std::int64_t first = 0; first < options.count; first += options.batch) {
    const Batch batch{first, std::min(options.batch, options.count - first)};
    done(first, run_batch(scheduler, denoise, conditioning(first, batch.count), batch, options));
  }
}

}  // namespace laptopdiff::diffusion
