// DDIM and DDPM: one network call a step, x0 predicted and then stepped back from.
#include <torch/types.h>

#include "diffusion/scheduler_kinds.h"

namespace laptopdiff::diffusion {
namespace {

at::Tensor noise_of(const StepOptions& options, const char* who) {
  TORCH_CHECK(options.noise, who, " adds noise at this step: StepOptions::noise must be set");
  return options.noise();
}

class Ddim final : public Scheduler {
 public:
  Ddim(const SchedulerOptions& options, NoiseSchedule schedule)
      : Scheduler(SchedulerKind::ddim, std::move(schedule)),
        options_(options),
        final_alpha_(options.set_alpha_to_one ? at::ones({}) : schedule_.alphas_cumprod[0]) {}

  // Song et al. 2020, equations 12 and 16.
  at::Tensor step(const at::Tensor& model_output, std::int64_t index, const at::Tensor& sample,
                  const StepOptions& options) override {
    const std::int64_t t = timestep(index);
    // One stride back, whatever the grid: with linspace spacing this is not the grid's next entry.
    const at::Tensor alpha_t = alpha(t, final_alpha_), alpha_p = alpha(t - train() / steps_, final_alpha_);
    const at::Tensor signal = alpha_t.sqrt(), noise = (1 - alpha_t).sqrt();
    at::Tensor x0 = x0_from(schedule_.prediction, sample, model_output, signal, noise);
    const at::Tensor epsilon = epsilon_from(schedule_.prediction, sample, model_output, signal, noise);
    if (options_.clip_sample) x0 = x0.clamp(-options_.clip_sample_range, options_.clip_sample_range);
    const at::Tensor variance = ((1 - alpha_p) / (1 - alpha_t)) * (1 - alpha_t / alpha_p);
    const at::Tensor deviation = options.eta * variance.sqrt();
    const at::Tensor direction = (1 - alpha_p - deviation.pow(2)).sqrt() * epsilon;
    const at::Tensor previous = alpha_p.sqrt() * x0 + direction;
    return options.eta > 0 ? previous + deviation * noise_of(options, "ddim with eta") : previous;
  }

 private:
  void lay_out() override { timesteps_ = plain_grid(options_, train(), steps_); }

  SchedulerOptions options_;
  at::Tensor final_alpha_;
};

class Ddpm final : public Scheduler {
 public:
  Ddpm(const SchedulerOptions& options, NoiseSchedule schedule)
      : Scheduler(SchedulerKind::ddpm, std::move(schedule)), options_(options) {}

  // Ho et al. 2020, equation 7.
  at::Tensor step(const at::Tensor& model_output, std::int64_t index, const at::Tensor& sample,
                  const StepOptions& options) override {
    const std::int64_t t = timestep(index);
    const bool is_last = index + 1 == static_cast<std::int64_t>(timesteps_.size());
    const at::Tensor alpha_t = alpha(t, one_), alpha_p = alpha(is_last ? -1 : timestep(index + 1), one_);
    const at::Tensor beta_t = 1 - alpha_t, beta_p = 1 - alpha_p;
    const at::Tensor current_alpha = alpha_t / alpha_p, current_beta = 1 - current_alpha;
    at::Tensor x0 = x0_from(schedule_.prediction, sample, model_output, alpha_t.sqrt(), beta_t.sqrt());
    if (options_.clip_sample) x0 = x0.clamp(-options_.clip_sample_range, options_.clip_sample_range);
    const at::Tensor mean =
        (alpha_p.sqrt() * current_beta) / beta_t * x0 + current_alpha.sqrt() * beta_p / beta_t * sample;
    if (t == 0) return mean;
    return mean + deviation(beta_p / beta_t * current_beta, current_beta) * noise_of(options, "ddpm");
  }

 private:
  void lay_out() override { timesteps_ = plain_grid(options_, train(), steps_); }

  at::Tensor deviation(const at::Tensor& posterior_variance, const at::Tensor& current_beta) const {
    const at::Tensor small = posterior_variance.clamp_min(1e-20);
    switch (options_.variance) {
      case Variance::fixed_large: return current_beta.sqrt();
      case Variance::fixed_small_log: return (0.5 * small.log()).exp();
      case Variance::fixed_small: break;
    }
    return small.sqrt();
  }

  SchedulerOptions options_;
  at::Tensor one_ = at::ones({});
};

}  // namespace

std::unique_ptr<Scheduler> make_ddim(const SchedulerOptions& options, NoiseSchedule schedule) {
  return std::make_unique<Ddim>(options, std::move(schedule));
}

std::unique_ptr<Scheduler> make_ddpm(const SchedulerOptions& options, NoiseSchedule schedule) {
  return std::make_unique<Ddpm>(options, std::move(schedule));
}

}  // namespace laptopdiff::diffusion
