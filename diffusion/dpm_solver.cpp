// DPM-Solver++ (multistep, data prediction), first and second order.
// Lu et al., "DPM-Solver++: fast solver for guided sampling of diffusion probabilistic models", 2022, algorithm 2.
#include <torch/types.h>

#include <algorithm>
#include <cmath>

#include "diffusion/scheduler_kinds.h"
#include "runtime/error.h"

namespace laptopdiff::diffusion {
namespace {

// The pair (alpha, sigma) with alpha^2 + sigma^2 = 1 that has the ratio `ratio`, and half its log signal-to-noise.
struct Level {
  at::Tensor alpha, sigma, lambda;
};
Level level_of(float ratio) {
  const at::Tensor r = at::scalar_tensor(ratio);
  const at::Tensor alpha = 1 / (r.pow(2) + 1).pow(0.5), sigma = r * alpha;
  return {alpha, sigma, alpha.log() - sigma.log()};
}

class DpmSolver final : public Scheduler {
 public:
  DpmSolver(const SchedulerOptions& options, NoiseSchedule schedule)
      : Scheduler(SchedulerKind::dpmpp_2m, with_finite_sigmas(std::move(schedule))), options_(options) {}

  at::Tensor step(const at::Tensor& model_output, std::int64_t index, const at::Tensor& sample,
                  const StepOptions&) override {
    timestep(index);  // checks the index
    if (index == 0) before_ = at::Tensor();
    const auto i = static_cast<std::size_t>(index);
    const Level here = level_of(sigmas_[i]), next = level_of(sigmas_[i + 1]);
    const at::Tensor x0 = x0_from(schedule_.prediction, sample, model_output, here.alpha, here.sigma);
    const bool first_order = options_.solver_order == 1 || !before_.defined() || is_plain_last(index);
    at::Tensor previous = first_order ? first_order_step(sample, x0, here, next)
                                      : second_order_step(sample, x0, level_of(sigmas_[i - 1]), here, next);
    before_ = x0;
    return previous;
  }

 private:
  bool is_plain_last(std::int64_t index) const {
    constexpr std::size_t kFewSteps = 15;
    if (index + 1 != static_cast<std::int64_t>(timesteps_.size())) return false;
    return options_.euler_at_final || options_.final_sigma_zero ||
           (options_.lower_order_final && timesteps_.size() < kFewSteps);
  }

  static at::Tensor first_order_step(const at::Tensor& sample, const at::Tensor& x0, const Level& here,
                                     const Level& next) {
    const at::Tensor h = next.lambda - here.lambda;
    return (next.sigma / here.sigma) * sample - (next.alpha * ((-h).exp() - 1.0)) * x0;
  }

  at::Tensor second_order_step(const at::Tensor& sample, const at::Tensor& x0, const Level& last, const Level& here,
                               const Level& next) const {
    const at::Tensor h = next.lambda - here.lambda, h_last = here.lambda - last.lambda;
    const at::Tensor slope = (1.0 / (h_last / h)) * (x0 - before_);
    const at::Tensor decay = (-h).exp() - 1.0;
    const at::Tensor plain = (next.sigma / here.sigma) * sample - (next.alpha * decay) * x0;
    if (options_.heun) return plain + (next.alpha * (decay / h + 1.0)) * slope;
    return plain - 0.5 * (next.alpha * decay) * slope;
  }

  void lay_out() override {
    const std::vector<float> all = schedule_sigmas(schedule_);
    std::vector<double> sigmas;
    if (options_.sigma_spacing == SigmaSpacing::schedule) {
      timesteps_ = schedule_grid();
      for (const double t : timesteps_) sigmas.push_back(interpolate(all, t));
    } else {
      sigmas = spaced_sigmas(all);
      timesteps_ = timesteps_of(sigmas, all);
    }
    sigmas_.assign(sigmas.begin(), sigmas.end());
    sigmas_.push_back(options_.final_sigma_zero ? 0.0F : all.front());
  }

  // The end of the schedule, without the steps whose lambda is below the threshold (for the squared cosine schedule).
  std::int64_t last_step() const {
    const at::Tensor alphas = schedule_.alphas_cumprod;
    const at::Tensor lambda = alphas.sqrt().log() - (1 - alphas).sqrt().log();
    return train() - (lambda < options_.lambda_min_clipped).sum().item<std::int64_t>();
  }

  std::vector<double> schedule_grid() const {
    const std::int64_t last = last_step();
    if (options_.spacing == Spacing::trailing) return trailing_grid(train(), steps_, last);
    // One point more than steps: the last, at 0, is the target and not a call.
    std::vector<double> grid;
    if (options_.spacing == Spacing::linspace) {
      grid = linspace_grid(last - 1, steps_ + 1);
    } else {
      if (steps_ + 1 > last) {
        throw runtime::usage_error("dpm++2m with leading spacing takes at most ", last - 1, " steps, got ", steps_);
      }
      grid = leading_grid(last, steps_ + 1, options_.steps_offset);
    }
    grid.pop_back();
    return grid;
  }

  std::vector<double> spaced_sigmas(const std::vector<float>& all) const {
    const double highest = options_.sigma_max.value_or(all.back()), lowest = options_.sigma_min.value_or(all.front());
    return options_.sigma_spacing == SigmaSpacing::karras ? karras_sigmas(highest, lowest, steps_)
                                                          : exponential_sigmas(highest, lowest, steps_);
  }

  std::vector<double> timesteps_of(const std::vector<double>& sigmas, const std::vector<float>& all) const {
    std::vector<float> logs;
    for (const double s : all) logs.push_back(static_cast<float>(std::log(s)));
    std::vector<double> grid;
    for (const double sigma : sigmas) {
      const double t = timestep_of_sigma(sigma, logs);
      grid.push_back(options_.round_sigma_timesteps ? std::nearbyint(t) : std::trunc(t));
    }
    return grid;
  }

  SchedulerOptions options_;
  std::vector<float> sigmas_;  // one more than calls: the last is the target's
  at::Tensor before_;          // x0 of the call before
};

}  // namespace

std::unique_ptr<Scheduler> make_dpmpp_2m(const SchedulerOptions& options, NoiseSchedule schedule) {
  return std::make_unique<DpmSolver>(options, std::move(schedule));
}

}  // namespace laptopdiff::diffusion
