// Euler's method on the probability flow, in the variance-exploding frame: x / sqrt(ab) has noise of size sigma.
// Karras et al., "Elucidating the design space of diffusion-based generative models", 2022, algorithm 2 without churn.
#include <torch/types.h>

#include <algorithm>
#include <cmath>

#include "diffusion/scheduler_kinds.h"

namespace laptopdiff::diffusion {
namespace {

class Euler final : public Scheduler {
 public:
  Euler(const SchedulerOptions& options, NoiseSchedule schedule)
      : Scheduler(SchedulerKind::euler, with_finite_sigmas(std::move(schedule))), options_(options) {}

  double init_noise_sigma() const override {
    const at::Tensor highest = at::scalar_tensor(*std::max_element(sigmas_.begin(), sigmas_.end()));
    if (options_.spacing != Spacing::leading) return highest.item<double>();
    return (highest.pow(2) + 1).pow(0.5).item<double>();
  }

  at::Tensor scale_model_input(const at::Tensor& sample, std::int64_t index) const override {
    return sample / (sigma(index).pow(2) + 1).pow(0.5);
  }

  at::Tensor step(const at::Tensor& model_output, std::int64_t index, const at::Tensor& sample,
                  const StepOptions&) override {
    timestep(index);  // checks the index
    const at::Tensor here = sigma(index), next = sigma(index + 1);
    const at::Tensor derivative = (sample - predicted_x0(model_output, sample, here)) / here;
    return sample + derivative * (next - here);
  }

 private:
  at::Tensor sigma(std::int64_t index) const { return at::scalar_tensor(sigmas_[static_cast<std::size_t>(index)]); }

  at::Tensor predicted_x0(const at::Tensor& output, const at::Tensor& sample, const at::Tensor& here) const {
    switch (schedule_.prediction) {
      case Prediction::epsilon: return sample - here * output;
      case Prediction::v_prediction: return output * (-here / (here.pow(2) + 1).pow(0.5)) + sample / (here.pow(2) + 1);
      case Prediction::sample: break;
    }
    return output;
  }

  void lay_out() override {
    const std::vector<float> all = schedule_sigmas(schedule_);
    std::vector<double> grid = options_.spacing == Spacing::linspace
                                   ? linspace(0, static_cast<double>(train() - 1), steps_)
                                   : plain_grid(options_, train(), steps_);
    if (options_.spacing == Spacing::linspace) std::reverse(grid.begin(), grid.end());
    for (double& t : grid) t = static_cast<float>(t);
    std::vector<double> sigmas = sigmas_of(grid, all);
    if (options_.sigma_spacing != SigmaSpacing::schedule) {
      sigmas = spaced_sigmas(sigmas);
      grid = timesteps_of(sigmas, all);
    }
    timesteps_ = grid;
    sigmas_.assign(sigmas.begin(), sigmas.end());
    sigmas_.push_back(options_.final_sigma_zero ? 0.0F : all.front());
  }

  std::vector<double> sigmas_of(const std::vector<double>& grid, const std::vector<float>& all) const {
    std::vector<double> sigmas;
    if (!options_.log_linear_interpolation) {
      for (const double t : grid) sigmas.push_back(interpolate(all, t));
      return sigmas;
    }
    const at::Tensor spaced = at::linspace(std::log(all.back()), std::log(all.front()), steps_ + 1, at::kFloat).exp();
    for (std::int64_t i = 0; i <= steps_; ++i) sigmas.push_back(spaced[i].item<double>());
    return sigmas;
  }

  // Between the ends of the grid's own sigmas, unlike dpm++, which takes the whole schedule's.
  std::vector<double> spaced_sigmas(const std::vector<double>& sigmas) const {
    const double highest = options_.sigma_max.value_or(sigmas.front()),
                 lowest = options_.sigma_min.value_or(sigmas.back());
    return options_.sigma_spacing == SigmaSpacing::karras ? karras_sigmas(highest, lowest, steps_)
                                                          : exponential_sigmas(highest, lowest, steps_);
  }

  static std::vector<double> timesteps_of(const std::vector<double>& sigmas, const std::vector<float>& all) {
    std::vector<float> logs;
    for (const double s : all) logs.push_back(static_cast<float>(std::log(s)));
    std::vector<double> grid;
    for (const double sigma : sigmas) grid.push_back(static_cast<float>(timestep_of_sigma(sigma, logs)));
    return grid;
  }

  SchedulerOptions options_;
  std::vector<float> sigmas_;
};

}  // namespace

std::unique_ptr<Scheduler> make_euler(const SchedulerOptions& options, NoiseSchedule schedule) {
  return std::make_unique<Euler>(options, std::move(schedule));
}

}  // namespace laptopdiff::diffusion
