// Samplers, as in diffusers 0.42: one step of the reverse process, from a noisy sample to a less noisy one.
//
// Letters: N training steps (1000), S sampling steps, ab = alphas_cumprod.
// DDPM: Ho et al. 2020. DDIM: Song et al. 2020. PNDM: Liu et al. 2022. DPM-Solver++: Lu et al. 2022. Euler: Karras et
// al. 2022.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "diffusion/noise_schedule.h"
#include "runtime/json.h"

namespace laptopdiff::diffusion {

enum class SchedulerKind { ddim, ddpm, pndm, dpmpp_2m, euler };

// "ddim", "ddpm", "pndm", "dpm++2m", "euler". Throws Error(usage) naming the near ones.
SchedulerKind parse_scheduler_kind(const std::string& name);
std::string scheduler_kind_name(SchedulerKind kind);
// From diffusers' class name ("DDIMScheduler", ...). Throws Error(bad_input).
SchedulerKind scheduler_kind_of_class(const std::string& class_name, const std::string& where);

// Standard normal noise shaped like the sample, asked for by samplers that add noise at a step.
using StepNoise = std::function<at::Tensor()>;

struct StepOptions {
  double eta = 0;   // DDIM only: 0 is deterministic, 1 is DDPM-like
  StepNoise noise;  // needed by ddpm and by ddim with eta > 0
};

// One sampling run. `index` counts calls of step, 0 .. timesteps().size() - 1, in order; a run starts at index 0 and
// may be started again there, which forgets the history of multistep samplers.
class Scheduler {
 public:
  // `kind` overrides the config's own class; every option that the config does not give has the default of the
  // diffusers class of that kind. Keys with a leading underscore are ignored, unknown ones warned about; those that
  // change the maths in a way that is not supported are refused by name: Error(bad_input).
  static std::unique_ptr<Scheduler> make(const runtime::Json& config, std::optional<SchedulerKind> kind = std::nullopt,
                                         const std::string& where = "scheduler_config.json");
  virtual ~Scheduler() = default;
  Scheduler(const Scheduler&) = delete;
  Scheduler& operator=(const Scheduler&) = delete;

  // Lays out the grid for S steps. Throws Error(usage) where S is not in 1 .. N or the grid leaves the schedule.
  void set_timesteps(std::int64_t steps);
  // What the network is given at each call; whole numbers except for euler with linspace spacing.
  const std::vector<double>& timesteps() const { return timesteps_; }
  // The standard deviation that unit noise is multiplied with to start a run.
  virtual double init_noise_sigma() const { return 1; }
  // The network's input at a call.
  virtual at::Tensor scale_model_input(const at::Tensor& sample, std::int64_t index) const { return sample; }
  // The sample after the call. f32 in, f32 out, on any device.
  virtual at::Tensor step(const at::Tensor& model_output, std::int64_t index, const at::Tensor& sample,
                          const StepOptions& options = {}) = 0;

  const NoiseSchedule& schedule() const { return schedule_; }
  SchedulerKind kind() const { return kind_; }

 protected:
  Scheduler(SchedulerKind kind, NoiseSchedule schedule) : kind_(kind), schedule_(std::move(schedule)) {}
  // Fills timesteps_ for steps_.
  virtual void lay_out() = 0;
  std::int64_t train() const { return schedule_.train_timesteps; }
  std::int64_t timestep(std::int64_t index) const;  // a whole timestep inside the schedule
  // ab at timestep `t` as a scalar tensor, or `before_first` where t < 0.
  at::Tensor alpha(std::int64_t t, const at::Tensor& before_first) const;

  SchedulerKind kind_;
  NoiseSchedule schedule_;
  std::int64_t steps_ = 0;
  std::vector<double> timesteps_;
};

}  // namespace laptopdiff::diffusion
