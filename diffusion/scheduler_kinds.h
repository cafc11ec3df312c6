// The samplers behind Scheduler::make, and the options they are built from. Internal to diffusion/.
#pragma once

#include <limits>
#include <memory>
#include <optional>
#include <string>

#include "diffusion/scheduler.h"
#include "diffusion/timestep_grid.h"

namespace laptopdiff::diffusion {

enum class Variance { fixed_small, fixed_small_log, fixed_large };
enum class SigmaSpacing { schedule, karras, exponential };

// Options of all kinds; scheduler.cpp fills in the defaults of the diffusers class.
struct SchedulerOptions {
  std::string where;
  Spacing spacing = Spacing::leading;
  std::int64_t steps_offset = 0;
  bool clip_sample = true;  // ddim, ddpm
  double clip_sample_range = 1;
  bool set_alpha_to_one = true;                                          // ddim, pndm
  Variance variance = Variance::fixed_small;                             // ddpm
  bool skip_prk_steps = false;                                           // pndm: no Runge-Kutta start
  std::int64_t solver_order = 2;                                         // dpm++
  bool heun = false;                                                     // dpm++: the other second-order form
  bool lower_order_final = true;                                         // dpm++
  bool euler_at_final = false;                                           // dpm++
  double lambda_min_clipped = -std::numeric_limits<double>::infinity();  // dpm++
  SigmaSpacing sigma_spacing = SigmaSpacing::schedule;                   // dpm++, euler
  bool round_sigma_timesteps = true;                                     // dpm++: not for the squared cosine schedule
  bool final_sigma_zero = true;                                          // dpm++, euler
  bool log_linear_interpolation = false;                                 // euler
  std::optional<double> sigma_min, sigma_max;                            // euler
};

std::unique_ptr<Scheduler> make_ddim(const SchedulerOptions& options, NoiseSchedule schedule);
std::unique_ptr<Scheduler> make_ddpm(const SchedulerOptions& options, NoiseSchedule schedule);
std::unique_ptr<Scheduler> make_pndm(const SchedulerOptions& options, NoiseSchedule schedule);
std::unique_ptr<Scheduler> make_dpmpp_2m(const SchedulerOptions& options, NoiseSchedule schedule);
std::unique_ptr<Scheduler> make_euler(const SchedulerOptions& options, NoiseSchedule schedule);

// The grid of ddim, ddpm and pndm, descending.
std::vector<double> plain_grid(const SchedulerOptions& options, std::int64_t train, std::int64_t steps);

// Scalar f32 tensors sigma(t) = sqrt((1 - ab) / ab) of the whole schedule.
std::vector<float> schedule_sigmas(const NoiseSchedule& schedule);

// A zero-terminal schedule ends at sigma = infinity; samplers that work on sigmas move ab there a little off 0.
NoiseSchedule with_finite_sigmas(NoiseSchedule schedule);

}  // namespace laptopdiff::diffusion
