// The forward process: how much noise a sample has at each training step, and what the network learns to undo it.
//
// Letters: N training steps (1000), B batch, ab = alphas_cumprod, x0 clean sample, x_t noisy sample, m model output.
// Ho et al., "Denoising diffusion probabilistic models", 2020; v-prediction: Salimans and Ho, "Progressive
// distillation", 2022; zero terminal SNR: Lin et al., "Common diffusion noise schedules are flawed", 2023.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <string>

#include "runtime/json.h"

namespace laptopdiff::diffusion {

// What the network was trained to predict.
enum class Prediction { epsilon, v_prediction, sample };

struct NoiseSchedule {
  std::int64_t train_timesteps = 1000;  // N
  Prediction prediction = Prediction::epsilon;
  at::Tensor betas;           // f32 [N] on the CPU
  at::Tensor alphas_cumprod;  // f32 [N] on the CPU, as diffusers computes it
};

// scheduler_config.json. It differs from our other JSON in one thing: diffusers writes -Infinity into it, which is no
// JSON, and which is read here as the text "-Infinity". Throws Error(bad_input).
runtime::Json read_scheduler_config(const std::filesystem::path& path);

// Reads num_train_timesteps, beta_start, beta_end, beta_schedule (linear, scaled_linear, squaredcos_cap_v2, sigmoid),
// trained_betas, prediction_type and rescale_betas_zero_snr. Throws Error(bad_input) for other schedules.
NoiseSchedule noise_schedule(const runtime::Json& config, const std::string& where = "scheduler_config.json");

// x_t = sqrt(ab_t) x0 + sqrt(1 - ab_t) noise. x0 and noise [B, ...], timesteps [B] int64, on any one device.
at::Tensor add_noise(const NoiseSchedule& schedule, const at::Tensor& x0, const at::Tensor& noise,
                     const at::Tensor& timesteps);
// v = sqrt(ab_t) noise - sqrt(1 - ab_t) x0.
at::Tensor velocity(const NoiseSchedule& schedule, const at::Tensor& x0, const at::Tensor& noise,
                    const at::Tensor& timesteps);
// What the network should output: noise, velocity or x0.
at::Tensor training_target(const NoiseSchedule& schedule, const at::Tensor& x0, const at::Tensor& noise,
                           const at::Tensor& timesteps);
// x0 and noise as a model output m at x_t implies them.
at::Tensor predicted_x0(const NoiseSchedule& schedule, const at::Tensor& x_t, const at::Tensor& output,
                        const at::Tensor& timesteps);
at::Tensor predicted_epsilon(const NoiseSchedule& schedule, const at::Tensor& x_t, const at::Tensor& output,
                             const at::Tensor& timesteps);
// Signal-to-noise ratio ab / (1 - ab) at each timestep, f32 [B].
at::Tensor signal_to_noise(const NoiseSchedule& schedule, const at::Tensor& timesteps);

// The same two conversions from signal = sqrt(ab) and noise = sqrt(1 - ab) (scalars, or shaped to broadcast).
at::Tensor x0_from(Prediction prediction, const at::Tensor& x_t, const at::Tensor& output, const at::Tensor& signal,
                   const at::Tensor& noise);
at::Tensor epsilon_from(Prediction prediction, const at::Tensor& x_t, const at::Tensor& output,
                        const at::Tensor& signal, const at::Tensor& noise);

}  // namespace laptopdiff::diffusion
