#include "diffusion/noise_schedule.h"

#include <torch/types.h>

#include <algorithm>
#include <cctype>
#include <cmath>
#include <numbers>

#include "runtime/error.h"
#include "runtime/file.h"

namespace laptopdiff::diffusion {
using runtime::input_error;
using runtime::Json;

namespace {

constexpr std::int64_t kMostTrainTimesteps = 1 << 20;
constexpr std::uint64_t kMaxConfigBytes = 64u << 20;

// Puts quotes around the bare words that Python's json module writes for what JSON cannot say.
std::string with_quoted_infinities(const std::string& text) {
  std::string out;
  bool in_string = false;
  for (std::size_t i = 0; i < text.size();) {
    if (text[i] == '"') in_string = !in_string;
    if (in_string && text[i] == '\\' && i + 1 < text.size()) out += text[i++];
    bool replaced = false;
    for (const std::string_view word : {"-Infinity", "Infinity", "NaN"}) {
      if (in_string || text.compare(i, word.size(), word) != 0) continue;
      out += '"' + std::string(word) + '"';
      i += word.size();
      replaced = true;
      break;
    }
    if (!replaced) out += text[i++];
  }
  return out;
}

// Betas whose cumulative product follows a squared cosine (Nichol and Dhariwal 2021), capped near the end.
at::Tensor squared_cosine_betas(std::int64_t count) {
  constexpr double kMaxBeta = 0.999;
  const auto alpha_bar = [](double t) {
    const double c = std::cos((t + 0.008) / 1.008 * std::numbers::pi / 2);
    return c * c;
  };
  std::vector<float> betas;
  for (std::int64_t i = 0; i < count; ++i) {
    const double t1 = static_cast<double>(i) / static_cast<double>(count);
    const double t2 = static_cast<double>(i + 1) / static_cast<double>(count);
    betas.push_back(static_cast<float>(std::min(1 - alpha_bar(t2) / alpha_bar(t1), kMaxBeta)));
  }
  return at::tensor(betas);
}

at::Tensor betas_by_name(const std::string& name, double start, double end, std::int64_t count,
                         const std::string& where) {
  if (name == "linear") return at::linspace(start, end, count, at::kFloat);
  if (name == "scaled_linear") return at::linspace(std::sqrt(start), std::sqrt(end), count, at::kFloat).pow(2);
  if (name == "squaredcos_cap_v2") return squared_cosine_betas(count);
  if (name == "sigmoid") return at::sigmoid(at::linspace(-6, 6, count, at::kFloat)) * (end - start) + start;
  throw input_error(where, ": `beta_schedule` \"", name, "\" is not supported",
                    runtime::did_you_mean(name, {"linear", "scaled_linear", "squaredcos_cap_v2", "sigmoid"}));
}

at::Tensor read_betas(runtime::ObjectReader& in, std::int64_t count) {
  const auto start = in.get("beta_start", 0.0001), end = in.get("beta_end", 0.02);
  const auto name = in.get<std::string>("beta_schedule", "linear");
  const bool is_trained = in.has("trained_betas");  // an empty list is no absent one: diffusers fails on it
  const auto trained = in.get<std::vector<double>>("trained_betas", {});
  if (!is_trained) {
    if (!(start > 0 && end > 0 && start < 1 && end < 1)) {
      throw input_error(in.where(), ": `beta_start` ", start, " and `beta_end` ", end, " must lie in (0, 1)");
    }
    return betas_by_name(name, start, end, count, in.where());
  }
  if (static_cast<std::int64_t>(trained.size()) != count) {
    throw input_error(in.where(), ": `trained_betas` has ", trained.size(), " entries, `num_train_timesteps` is ",
                      count);
  }
  for (const double beta : trained) {
    if (!(beta > 0 && beta <= 1))
      throw input_error(in.where(), ": `trained_betas` holds ", beta, ", expected numbers above 0 and at most 1");
  }
  return at::tensor(std::vector<float>(trained.begin(), trained.end()));
}

// Shifts and scales sqrt(ab) so that its last value is 0 and its first stays (Lin et al. 2023, algorithm 1).
at::Tensor with_zero_terminal_snr(const at::Tensor& betas) {
  at::Tensor root = at::cumprod(1.0 - betas, 0).sqrt();
  const at::Tensor first = root[0].clone(), last = root[-1].clone();
  root -= last;
  root *= first / (first - last);
  const at::Tensor product = root.pow(2);
  const at::Tensor alphas = product.slice(0, 1) / product.slice(0, 0, -1);
  return 1 - at::cat({product.slice(0, 0, 1), alphas});
}

Prediction read_prediction(runtime::ObjectReader& in) {
  const auto name = in.get<std::string>("prediction_type", "epsilon");
  if (name == "epsilon") return Prediction::epsilon;
  if (name == "v_prediction") return Prediction::v_prediction;
  if (name == "sample") return Prediction::sample;
  throw input_error(in.where(), ": `prediction_type` \"", name, "\" is not supported",
                    runtime::did_you_mean(name, {"epsilon", "v_prediction", "sample"}));
}

// ab at each timestep in the dtype and on the device of `like`, shaped [B, 1, 1, ...] to broadcast over it.
at::Tensor alphas_for(const NoiseSchedule& schedule, const at::Tensor& timesteps, const at::Tensor& like) {
  at::Tensor alphas = schedule.alphas_cumprod.to(like.options()).index({timesteps.to(like.device())});
  std::vector<std::int64_t> shape(static_cast<std::size_t>(like.dim()), 1);
  shape[0] = alphas.numel();
  return alphas.view(shape);
}

}  // namespace

Json read_scheduler_config(const std::filesystem::path& path) {
  return runtime::parse_json(with_quoted_infinities(runtime::read_file(path, kMaxConfigBytes)), path.string());
}

NoiseSchedule noise_schedule(const Json& config, const std::string& where) {
  runtime::ObjectReader in(config, where);
  NoiseSchedule out;
  out.train_timesteps = in.get("num_train_timesteps", out.train_timesteps);
  if (out.train_timesteps < 1 || out.train_timesteps > kMostTrainTimesteps) {
    throw input_error(where, ": `num_train_timesteps` is ", out.train_timesteps, ", expected 1 to ",
                      kMostTrainTimesteps);
  }
  out.prediction = read_prediction(in);
  out.betas = read_betas(in, out.train_timesteps);
  if (in.get("rescale_betas_zero_snr", false)) out.betas = with_zero_terminal_snr(out.betas);
  out.alphas_cumprod = at::cumprod(1.0 - out.betas, 0);
  return out;
}

at::Tensor add_noise(const NoiseSchedule& schedule, const at::Tensor& x0, const at::Tensor& noise,
                     const at::Tensor& timesteps) {
  const at::Tensor alphas = alphas_for(schedule, timesteps, x0);
  return alphas.sqrt() * x0 + (1 - alphas).sqrt() * noise;
}

at::Tensor velocity(const NoiseSchedule& schedule, const at::Tensor& x0, const at::Tensor& noise,
                    const at::Tensor& timesteps) {
  const at::Tensor alphas = alphas_for(schedule, timesteps, x0);
  return alphas.sqrt() * noise - (1 - alphas).sqrt() * x0;
}

at::Tensor training_target(const NoiseSchedule& schedule, const at::Tensor& x0, const at::Tensor& noise,
                           const at::Tensor& timesteps) {
  switch (schedule.prediction) {
    case Prediction::epsilon: return noise;
    case Prediction::sample: return x0;
    case Prediction::v_prediction: break;
  }
  return velocity(schedule, x0, noise, timesteps);
}

at::Tensor predicted_x0(const NoiseSchedule& schedule, const at::Tensor& x_t, const at::Tensor& output,
                        const at::Tensor& timesteps) {
  const at::Tensor alphas = alphas_for(schedule, timesteps, x_t);
  return x0_from(schedule.prediction, x_t, output, alphas.sqrt(), (1 - alphas).sqrt());
}

at::Tensor predicted_epsilon(const NoiseSchedule& schedule, const at::Tensor& x_t, const at::Tensor& output,
                             const at::Tensor& timesteps) {
  const at::Tensor alphas = alphas_for(schedule, timesteps, x_t);
  return epsilon_from(schedule.prediction, x_t, output, alphas.sqrt(), (1 - alphas).sqrt());
}

at::Tensor signal_to_noise(const NoiseSchedule& schedule, const at::Tensor& timesteps) {
  const at::Tensor alphas = schedule.alphas_cumprod.to(timesteps.device()).index({timesteps});
  return alphas / (1 - alphas);
}

at::Tensor x0_from(Prediction prediction, const at::Tensor& x_t, const at::Tensor& output, const at::Tensor& signal,
                   const at::Tensor& noise) {
  switch (prediction) {
    case Prediction::epsilon: return (x_t - noise * output) / signal;
    case Prediction::v_prediction: return signal * x_t - noise * output;
    case Prediction::sample: break;
  }
  return output;
}

at::Tensor epsilon_from(Prediction prediction, const at::Tensor& x_t, const at::Tensor& output,
                        const at::Tensor& signal, const at::Tensor& noise) {
  switch (prediction) {
    case Prediction::sample: return (x_t - signal * output) / noise;
    case Prediction::v_prediction: return signal * output + noise * x_t;
    case Prediction::epsilon: break;
  }
  return output;
}

}  // namespace laptopdiff::diffusion
