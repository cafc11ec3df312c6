// The sampling loop: noise -> latents or pixels, with classifier-free guidance (Ho and Salimans 2022).
//
// Letters: N images, B images of one batch, C x h x w the sample's size, T tokens, D context width, P pooled width.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/Device.h>

#include <cstdint>
#include <functional>
#include <vector>

#include "diffusion/scheduler.h"

namespace laptopdiff::diffusion {

// What the network is conditioned on, one row an image. Undefined tensors mean "not given".
struct Context {
  at::Tensor encoder_hidden_states;  // [B, T, D]
  at::Tensor text_embeds;            // [B, P]; XL
  at::Tensor time_ids;               // [B, 6]; XL
  at::Tensor class_labels;           // [B, ...]; class-conditional models
};

// The network: sample [B, C, h, w], one timestep for all, context of B rows -> output of the sample's size.
// Under guidance it is called with 2B rows, the unconditional half first.
using Denoiser = std::function<at::Tensor(const at::Tensor& sample, double timestep, const Context& context)>;

struct Conditioning {
  Context conditional;
  Context unconditional;  // B rows or 1 row for all; without encoder_hidden_states there is no guidance
};
// Called for each batch with its first image's number and its size.
using ConditioningOf = std::function<Conditioning(std::int64_t first, std::int64_t count)>;

struct SampleOptions {
  std::int64_t count = 1;  // N
  std::int64_t batch = 1;  // B; the last batch may be smaller
  std::int64_t steps = 50;
  double guidance = 7.5;  // g in m = m_u + g (m_c - m_u); guidance is off at 1 and below, as in diffusers
  // Share, 0 to 1, of the guided output that is brought back to the deviation of the conditional one (Lin et al. 2023,
  // section 3.4).
  double guidance_rescale = 0;
  double eta = 0;  // DDIM's noise share, 0 to 1
  std::uint64_t seed = 0;
  std::vector<std::int64_t> shape;  // {C, h, w}
  at::Tensor latents;               // optional unit noise [N, C, h, w], in place of the seed's
  c10::Device device = c10::Device(c10::kCPU);
};

// Unit noise of image `image`, f32 [C, h, w]: a function of (seed, image) alone, so the batch size cannot change it.
at::Tensor initial_noise(std::uint64_t seed, std::int64_t image, const std::vector<std::int64_t>& shape);

// Noise that a sampler adds to `image` at its call `index`, likewise.
at::Tensor step_noise(std::uint64_t seed, std::int64_t index, std::int64_t image,
                      const std::vector<std::int64_t>& shape);

// Called in order with the number of the batch's first image and its final samples, f32 [B, C, h, w] on `device`.
using BatchDone = std::function<void(std::int64_t first, const at::Tensor& samples)>;

// Runs all images through `scheduler`.
// Throws Error(usage) for impossible options, Error(bad_input) for latents of the wrong shape, Error(non_finite) naming
// image and step where the network's output is not finite.
void sample(Scheduler& scheduler, const Denoiser& denoise, const ConditioningOf& conditioning,
            const SampleOptions& options, const BatchDone& done);

}  // namespace laptopdiff::diffusion
