// PNDM: linear multistep on epsilon (PLMS), with or without the Runge-Kutta start.
// Liu et al., "Pseudo numerical methods for diffusion models on manifolds", 2022: equations 9, 12, 13, algorithm 2.
#include <torch/types.h>

#include <algorithm>

#include "diffusion/scheduler_kinds.h"
#include "runtime/error.h"

namespace laptopdiff::diffusion {
namespace {

constexpr std::int64_t kRungeKuttaStarts = 4;  // grid entries that the start works on

class Pndm final : public Scheduler {
 public:
  Pndm(const SchedulerOptions& options, NoiseSchedule schedule)
      : Scheduler(SchedulerKind::pndm, std::move(schedule)),
        options_(options),
        final_alpha_(options.set_alpha_to_one ? at::ones({}) : schedule_.alphas_cumprod[0]) {}

  at::Tensor step(const at::Tensor& model_output, std::int64_t index, const at::Tensor& sample,
                  const StepOptions&) override {
    if (index == 0) forget();
    return index < start_calls_ ? runge_kutta(model_output, index, sample) : multistep(model_output, index, sample);
  }

 private:
  void forget() {
    outputs_.clear();
    slope_ = at::Tensor();
    start_sample_ = at::Tensor();
  }

  void lay_out() override {
    const std::vector<double> grid = plain_grid(options_, train(), steps_);
    timesteps_.clear();
    start_calls_ = 0;
    if (!options_.skip_prk_steps) return lay_out_with_start(grid);
    timesteps_ = grid;
    // The second entry is visited twice: once from a plain step, once to correct that step.
    if (grid.size() > 1) timesteps_.insert(timesteps_.begin() + 1, grid[1]);
  }

  // The first three intervals are crossed with four calls each: at their start, twice in the middle, at their end.
  void lay_out_with_start(const std::vector<double>& grid) {
    if (steps_ < kRungeKuttaStarts) {
      throw runtime::usage_error("pndm with its Runge-Kutta start needs at least ", kRungeKuttaStarts, " steps, got ",
                                 steps_, "; set `skip_prk_steps` or use more steps");
    }
    const double half = static_cast<double>(train() / steps_ / 2);
    for (std::size_t i = 0; i + 1 < kRungeKuttaStarts; ++i) {
      const double middle = grid[i + 1] + half;
      timesteps_.insert(timesteps_.end(), {grid[i], middle, middle, grid[i + 1]});
    }
    start_calls_ = static_cast<std::int64_t>(timesteps_.size());
    timesteps_.insert(timesteps_.end(), grid.begin() + kRungeKuttaStarts - 1, grid.end());
  }

  at::Tensor runge_kutta(const at::Tensor& output, std::int64_t index, const at::Tensor& sample) {
    const std::int64_t phase = index % 4;
    const std::int64_t back = phase % 2 == 1 ? 0 : train() / steps_ / 2;
    const std::int64_t from = timestep(index - phase), to = timestep(index) - back;
    at::Tensor slope = output;
    if (phase == 0) {
      slope_ = (1.0 / 6) * output;
      outputs_.push_back(output);
      start_sample_ = sample;
    } else if (phase == 3) {
      slope = slope_ + (1.0 / 6) * output;
    } else {
      slope_ = slope_ + (1.0 / 3) * output;
    }
    return transfer(start_sample_, from, to, slope);
  }

  at::Tensor multistep(const at::Tensor& output, std::int64_t index, const at::Tensor& sample) {
    const std::int64_t stride = train() / steps_, t = timestep(index);
    if (index == 1 && start_calls_ == 0) {
      // The corrected first step: the average of both ends' outputs, applied from the first sample.
      const at::Tensor average = (output + outputs_.back()) / 2;
      return transfer(start_sample_, t + stride, t, average);
    }
    if (index == 0) start_sample_ = sample;
    if (outputs_.size() > 3) outputs_.erase(outputs_.begin());
    outputs_.push_back(output);
    return transfer(sample, t, t - stride, combined());
  }

  // Adams-Bashforth of the order that the history allows, newest output last.
  at::Tensor combined() const {
    const auto e = [&](std::size_t age) { return outputs_[outputs_.size() - 1 - age]; };
    switch (outputs_.size()) {
      case 1: return e(0);
      case 2: return (3 * e(0) - e(1)) / 2;
      case 3: return (23 * e(0) - 16 * e(1) + 5 * e(2)) / 12;
      default: return (1.0 / 24) * (55 * e(0) - 59 * e(1) + 37 * e(2) - 9 * e(3));
    }
  }

  at::Tensor transfer(const at::Tensor& sample, std::int64_t from, std::int64_t to, at::Tensor output) const {
    // The corrected first step may start one stride past the schedule's end on uneven grids.
    if (from >= train()) {
      throw runtime::usage_error("pndm with ", steps_, " steps would start at timestep ", from,
                                 ", past the schedule's end ", train() - 1, "; use `leading` spacing");
    }
    const at::Tensor alpha_t = alpha(from, final_alpha_), alpha_p = alpha(to, final_alpha_);
    const at::Tensor beta_t = 1 - alpha_t, beta_p = 1 - alpha_p;
    if (schedule_.prediction == Prediction::v_prediction) output = alpha_t.sqrt() * output + beta_t.sqrt() * sample;
    const at::Tensor denominator = alpha_t * beta_p.sqrt() + (alpha_t * beta_t * alpha_p).sqrt();
    return (alpha_p / alpha_t).sqrt() * sample - (alpha_p - alpha_t) * output / denominator;
  }

  SchedulerOptions options_;
  at::Tensor final_alpha_;
  std::int64_t start_calls_ = 0;
  std::vector<at::Tensor> outputs_;  // the newest last
  at::Tensor slope_, start_sample_;
};

}  // namespace

std::unique_ptr<Scheduler> make_pndm(const SchedulerOptions& options, NoiseSchedule schedule) {
  return std::make_unique<Pndm>(options, std::move(schedule));
}

}  // namespace laptopdiff::diffusion
