#include "diffusion/scheduler.h"

#include <torch/types.h>

#include <cmath>
#include <set>

#include "diffusion/scheduler_kinds.h"
#include "runtime/error.h"
#include "runtime/progress.h"

namespace laptopdiff::diffusion {
using runtime::input_error;
using runtime::Json;
using runtime::ObjectReader;

namespace {

struct KindRow {
  SchedulerKind kind;
  const char* name;
  const char* class_name;
  std::unique_ptr<Scheduler> (*make)(const SchedulerOptions&, NoiseSchedule);
};

constexpr KindRow kKinds[] = {
    {SchedulerKind::ddim, "ddim", "DDIMScheduler", make_ddim},
    {SchedulerKind::ddpm, "ddpm", "DDPMScheduler", make_ddpm},
    {SchedulerKind::pndm, "pndm", "PNDMScheduler", make_pndm},
    {SchedulerKind::dpmpp_2m, "dpm++2m", "DPMSolverMultistepScheduler", make_dpmpp_2m},
    {SchedulerKind::euler, "euler", "EulerDiscreteScheduler", make_euler},
};

const KindRow& row_of(SchedulerKind kind) {
  for (const KindRow& row : kKinds) {
    if (row.kind == kind) return row;
  }
  throw std::logic_error("a scheduler kind without a row");
}

// Every key of the five classes. One that another class owns is no mistake: configs are shared between classes.
const std::set<std::string>& known_keys() {
  static const std::set<std::string> keys = {"num_train_timesteps",
                                             "beta_start",
                                             "beta_end",
                                             "beta_schedule",
                                             "trained_betas",
                                             "clip_sample",
                                             "clip_sample_range",
                                             "set_alpha_to_one",
                                             "steps_offset",
                                             "prediction_type",
                                             "thresholding",
                                             "dynamic_thresholding_ratio",
                                             "sample_max_value",
                                             "timestep_spacing",
                                             "rescale_betas_zero_snr",
                                             "variance_type",
                                             "skip_prk_steps",
                                             "solver_order",
                                             "algorithm_type",
                                             "solver_type",
                                             "lower_order_final",
                                             "euler_at_final",
                                             "use_karras_sigmas",
                                             "use_exponential_sigmas",
                                             "use_beta_sigmas",
                                             "use_lu_lambdas",
                                             "use_flow_sigmas",
                                             "flow_shift",
                                             "final_sigmas_type",
                                             "lambda_min_clipped",
                                             "use_dynamic_shifting",
                                             "time_shift_type",
                                             "interpolation_type",
                                             "sigma_min",
                                             "sigma_max",
                                             "timestep_type"};
  return keys;
}

void warn_unknown_keys(const Json& config, const std::string& where) {
  const std::vector<std::string> known(known_keys().begin(), known_keys().end());
  for (const auto& [key, value] : config.items()) {
    if (key.rfind('_', 0) == 0 || known_keys().count(key)) continue;
    runtime::warn(runtime::cat(where, ": unknown key `", key, "` is ignored", runtime::did_you_mean(key, known)));
  }
}

bool is_sigma_kind(SchedulerKind kind) { return kind == SchedulerKind::dpmpp_2m || kind == SchedulerKind::euler; }

void refuse_if_set(ObjectReader& in, const char* key) {
  if (in.get(key, false)) throw input_error(in.where(), ": `", key, "` is not supported");
}

void refuse_unless(ObjectReader& in, const char* key, const std::vector<std::string>& supported) {
  const auto value = in.get<std::string>(key, supported.front());
  for (const auto& name : supported) {
    if (value == name) return;
  }
  throw input_error(in.where(), ": `", key, "` \"", value,
                    "\" is not supported; supported: ", runtime::join(supported));
}

// The options that would change a sampler's maths in a way that it does not compute.
void refuse_other_maths(ObjectReader& in, SchedulerKind kind) {
  if (kind == SchedulerKind::ddim || kind == SchedulerKind::ddpm || kind == SchedulerKind::dpmpp_2m) {
    refuse_if_set(in, "thresholding");
  }
  const auto variance = in.get<std::string>("variance_type", "fixed_small");
  if (variance.rfind("learned", 0) == 0) {
    throw input_error(in.where(), ": `variance_type` \"", variance,
                      "\" is not supported: the network's variance output is not used");
  }
  if (is_sigma_kind(kind)) refuse_if_set(in, "use_beta_sigmas");
  if (kind == SchedulerKind::dpmpp_2m) {
    for (const char* key : {"use_lu_lambdas", "use_flow_sigmas", "use_dynamic_shifting"}) refuse_if_set(in, key);
    refuse_unless(in, "algorithm_type", {"dpmsolver++", "deis"});  // diffusers reads deis as dpmsolver++
    refuse_unless(in, "solver_type", {"midpoint", "heun", "logrho", "bh1", "bh2"});  // the last three as midpoint
    if (in.get<std::int64_t>("solver_order", 2) > 2) {
      throw input_error(in.where(), ": `solver_order` ", in.get<std::int64_t>("solver_order", 2),
                        " is not supported; supported: 1, 2");
    }
  }
  if (kind == SchedulerKind::euler) refuse_unless(in, "timestep_type", {"discrete"});
}

Spacing read_spacing(ObjectReader& in, SchedulerKind kind) {
  const auto name = in.get<std::string>("timestep_spacing", is_sigma_kind(kind) ? "linspace" : "leading");
  if (name == "leading") return Spacing::leading;
  if (name == "trailing") return Spacing::trailing;
  if (name == "linspace") return Spacing::linspace;
  throw input_error(in.where(), ": `timestep_spacing` \"", name, "\" is not supported",
                    runtime::did_you_mean(name, {"leading", "trailing", "linspace"}));
}

Variance read_variance(ObjectReader& in, SchedulerKind kind) {
  const auto name = in.get<std::string>("variance_type", "fixed_small");
  if (name == "fixed_small" || kind != SchedulerKind::ddpm) return Variance::fixed_small;
  if (name == "fixed_small_log") return Variance::fixed_small_log;
  if (name == "fixed_large") return Variance::fixed_large;
  throw input_error(in.where(), ": `variance_type` \"", name, "\" is not supported",
                    runtime::did_you_mean(name, {"fixed_small", "fixed_small_log", "fixed_large"}));
}

SigmaSpacing read_sigma_spacing(ObjectReader& in) {
  const bool karras = in.get("use_karras_sigmas", false), exponential = in.get("use_exponential_sigmas", false);
  if (karras && exponential) {
    throw input_error(in.where(), ": `use_karras_sigmas` and `use_exponential_sigmas` exclude each other");
  }
  return karras ? SigmaSpacing::karras : exponential ? SigmaSpacing::exponential : SigmaSpacing::schedule;
}

double read_lambda_min(ObjectReader& in) {
  const double none = -std::numeric_limits<double>::infinity();
  if (in.has("lambda_min_clipped") && in.raw("lambda_min_clipped") == "-Infinity") return none;
  return in.get("lambda_min_clipped", none);
}

void read_sigma_options(ObjectReader& in, SchedulerOptions& o) {
  o.solver_order = in.get("solver_order", o.solver_order);
  o.heun = in.get<std::string>("solver_type", "midpoint") == "heun";
  o.lower_order_final = in.get("lower_order_final", o.lower_order_final);
  o.euler_at_final = in.get("euler_at_final", o.euler_at_final);
  o.lambda_min_clipped = read_lambda_min(in);
  o.sigma_spacing = read_sigma_spacing(in);
  o.round_sigma_timesteps =
      in.get<std::string>("beta_schedule", "linear") != "squaredcos_cap_v2" && o.sigma_spacing == SigmaSpacing::karras;
  refuse_unless(in, "final_sigmas_type", {"zero", "sigma_min"});
  o.final_sigma_zero = in.get<std::string>("final_sigmas_type", "zero") == "zero";
  refuse_unless(in, "interpolation_type", {"linear", "log_linear"});
  o.log_linear_interpolation = in.get<std::string>("interpolation_type", "linear") == "log_linear";
  if (in.has("sigma_min")) o.sigma_min = in.required<double>("sigma_min");
  if (in.has("sigma_max")) o.sigma_max = in.required<double>("sigma_max");
}

SchedulerOptions read_options(const Json& config, SchedulerKind kind, const std::string& where) {
  ObjectReader in(config, where);
  refuse_other_maths(in, kind);
  SchedulerOptions o;
  o.where = where;
  o.spacing = read_spacing(in, kind);
  o.steps_offset = in.get("steps_offset", o.steps_offset);
  constexpr std::int64_t kMostOffset = 1000000;  // far beyond any schedule, and far from overflow
  if (o.steps_offset < 0 || o.steps_offset > kMostOffset)
    throw input_error(where, ": `steps_offset` is ", o.steps_offset, ", expected 0 to ", kMostOffset);
  o.clip_sample = in.get("clip_sample", o.clip_sample);
  o.clip_sample_range = in.get("clip_sample_range", o.clip_sample_range);
  o.set_alpha_to_one = in.get("set_alpha_to_one", kind == SchedulerKind::ddim);
  o.variance = read_variance(in, kind);
  o.skip_prk_steps = in.get("skip_prk_steps", o.skip_prk_steps);
  if (is_sigma_kind(kind)) read_sigma_options(in, o);
  return o;
}

SchedulerKind kind_of_config(const Json& config, const std::string& where) {
  ObjectReader in(config, where);
  return scheduler_kind_of_class(in.required<std::string>("_class_name"), where);
}

}  // namespace

SchedulerKind parse_scheduler_kind(const std::string& name) {
  std::vector<std::string> names;
  for (const KindRow& row : kKinds) {
    if (name == row.name) return row.kind;
    names.push_back(row.name);
  }
  throw runtime::usage_error("unknown scheduler `", name, "`", runtime::did_you_mean(name, names));
}

std::string scheduler_kind_name(SchedulerKind kind) { return row_of(kind).name; }

SchedulerKind scheduler_kind_of_class(const std::string& class_name, const std::string& where) {
  std::vector<std::string> names;
  for (const KindRow& row : kKinds) {
    if (class_name == row.class_name) return row.kind;
    names.push_back(row.class_name);
  }
  throw input_error(where, ": scheduler class ", class_name, " is not supported; supported: ", runtime::join(names),
                    ". Choose one with --scheduler");
}

std::unique_ptr<Scheduler> Scheduler::make(const Json& config, std::optional<SchedulerKind> kind,
                                           const std::string& where) {
  if (!config.is_object()) throw input_error(where, ": expected an object");
  const SchedulerKind chosen = kind ? *kind : kind_of_config(config, where);
  warn_unknown_keys(config, where);
  Json mine = config;
  // The PNDM class does not know the option, so a PNDM run of such a config is one without it.
  if (chosen == SchedulerKind::pndm) mine.erase("rescale_betas_zero_snr");
  NoiseSchedule schedule = noise_schedule(mine, where);
  if (chosen == SchedulerKind::pndm && schedule.prediction == Prediction::sample) {
    throw input_error(where,
                      ": `prediction_type` \"sample\" is not supported by pndm; expected epsilon or v_prediction");
  }
  return row_of(chosen).make(read_options(mine, chosen, where), std::move(schedule));
}

void Scheduler::set_timesteps(std::int64_t steps) {
  if (steps < 1 || steps > train()) {
    throw runtime::usage_error("steps is ", steps, ", expected 1 to ", train(), ", the number of training steps");
  }
  steps_ = steps;
  lay_out();
  for (const double t : timesteps_) {
    // Euler's grid may end one step late: its sigmas are clamped there, as in diffusers.
    if (t < 0 || (t >= static_cast<double>(train()) && kind_ != SchedulerKind::euler)) {
      throw runtime::usage_error(scheduler_kind_name(kind_), " with ", steps, " steps would visit timestep ", t,
                                 ", but the schedule has 0 to ", train() - 1, "; use fewer steps or another spacing");
    }
  }
}

std::int64_t Scheduler::timestep(std::int64_t index) const {
  TORCH_CHECK(index >= 0 && index < static_cast<std::int64_t>(timesteps_.size()), "scheduler: step ", index, " of ",
              timesteps_.size());
  return static_cast<std::int64_t>(timesteps_[static_cast<std::size_t>(index)]);
}

at::Tensor Scheduler::alpha(std::int64_t t, const at::Tensor& before_first) const {
  return t >= 0 ? schedule_.alphas_cumprod[t] : before_first;
}

std::vector<double> plain_grid(const SchedulerOptions& options, std::int64_t train, std::int64_t steps) {
  switch (options.spacing) {
    case Spacing::leading: return leading_grid(train, steps, options.steps_offset);
    case Spacing::trailing: return trailing_grid(train, steps, train);
    case Spacing::linspace: break;
  }
  return linspace_grid(train - 1, steps);
}

std::vector<float> schedule_sigmas(const NoiseSchedule& schedule) {
  const at::Tensor sigmas = ((1 - schedule.alphas_cumprod) / schedule.alphas_cumprod).pow(0.5).contiguous();
  return {sigmas.data_ptr<float>(), sigmas.data_ptr<float>() + sigmas.numel()};
}

NoiseSchedule with_finite_sigmas(NoiseSchedule schedule) {
  if (schedule.alphas_cumprod[-1].item<float>() > 0) return schedule;
  schedule.alphas_cumprod = schedule.alphas_cumprod.clone();
  schedule.alphas_cumprod[-1] = std::ldexp(1.0, -24);  // half precision's smallest number
  return schedule;
}

}  // namespace laptopdiff::diffusion
