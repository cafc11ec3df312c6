#include "distill/trainer.h"

#include <ATen/autocast_mode.h>
#include <torch/types.h>

#include <chrono>
#include <fstream>
#include <optional>

#include "diffusion/fit.h"
#include "distill/batch.h"
#include "distill/losses.h"
#include "distill/optimizer.h"
#include "runtime/config.h"
#include "runtime/error.h"
#include "runtime/gpu.h"
#include "runtime/hash.h"
#include "runtime/progress.h"
#include "runtime/stop.h"
#include "unet/weights.h"

namespace laptopdiff::distill {
namespace fs = std::filesystem;
namespace {

using runtime::cat;
using runtime::Json;

// Autocast for the time it lives; nothing for f32.
class AutocastGuard {
 public:
  AutocastGuard(at::Device device, at::ScalarType dtype) : type_(device.type()), on_(dtype != at::kFloat) {
    if (!on_) return;
    at::autocast::set_autocast_enabled(type_, true);
    at::autocast::set_autocast_dtype(type_, dtype);
  }
  ~AutocastGuard() {
    if (!on_) return;
    at::autocast::clear_cache();
    at::autocast::set_autocast_enabled(type_, false);
  }
  AutocastGuard(const AutocastGuard&) = delete;
  AutocastGuard& operator=(const AutocastGuard&) = delete;

 private:
  at::DeviceType type_;
  bool on_;
};

// Everything a step reads and none of it changes: networks' programs, the teacher, the data.
struct Setting {
  unet::Spec spec;
  unet::Program base, student;
  TensorMap teacher_weights;
  TensorMap initial;  // the student's weights before the first step
  std::vector<TapPair> pairs;
  LatentCache cache;
  diffusion::NoiseSchedule schedule;
  std::int64_t first_timestep = 0, last_timestep = 0;
  std::string key;  // of everything that decides the result
};

unet::Spec student_spec(const DistillConfig& config, const unet::Model& teacher, const std::string& teacher_sha256) {
  const unet::Spec spec = unet::read_spec(config.spec);
  if (unet::comparable_config(spec.base) != unet::comparable_config(teacher.spec.base)) {
    throw runtime::input_error(config.spec, ": its base is not the architecture of ", teacher.path.string());
  }
  if (!spec.weights_sha256.empty() && spec.weights_sha256 != teacher_sha256) {
    throw runtime::input_error(config.spec, ": was made for other weights (", spec.weights_sha256.substr(0, 12),
                               "...) than ", teacher.path.string());
  }
  return spec;
}

TensorMap initial_weights(const DistillConfig& config, const Setting& setting) {
  if (config.init.empty()) return unet::select_weights(setting.student, setting.teacher_weights, "teacher");
  const unet::Model init = unet::load_model(config.init);
  if (!unet::same_spec(init.spec, setting.spec))
    throw runtime::input_error(config.init, ": is a student of another spec than ", config.spec);
  return init.weights;
}

// Without what changes how a run reports, not what it computes.
Json identity(const DistillConfig& config, at::Device device) {
  Json json = runtime::write_config(config);
  if (config.repeatable || device.is_cpu()) json.erase("repeatable");
  for (const char* key : {"log_every", "checkpoint_every", "cache", "pipeline", "teacher", "spec", "init"})
    json.erase(key);
  json["data"].erase("folder");
  return json;
}

// The noise that a sample gets and what the network is to say of it.
std::string schedule_digest(const diffusion::NoiseSchedule& schedule) {
  runtime::Sha256 hash;
  hash.add(cat(schedule.train_timesteps, " ", static_cast<int>(schedule.prediction), "\n"));
  const at::Tensor alphas = schedule.alphas_cumprod.contiguous();
  hash.add(alphas.data_ptr<float>(), alphas.nbytes());
  return hash.hex();
}

// All but the data, which is encoded only for a run that has something left to do.
Setting prepare(const DistillConfig& config, const diffusion::Pipeline& pipeline, const std::string& data_key,
                const RunOptions& options) {
  Setting s;
  s.schedule = diffusion::noise_schedule(pipeline.scheduler_config);
  const unet::Model teacher = unet::load_model(config.teacher.empty() ? pipeline.unet_folder.string() : config.teacher);
  const std::string teacher_sha256 = runtime::tensors_sha256(teacher.weights);
  s.spec = student_spec(config, teacher, teacher_sha256);
  s.base = unet::build_base(teacher.spec.base);
  if (!teacher.spec.removed.empty())
    throw runtime::usage_error("distill: the teacher ", teacher.path.string(), " is pruned; give a full model");
  diffusion::check_batches(s.spec.base, "distill");
  diffusion::check_fit(s.spec.base, pipeline, "distill");
  s.student = unet::prune(s.base, s.spec);
  s.teacher_weights = unet::convert(teacher.weights, at::kFloat, options.device);
  if (const auto bad = runtime::non_finite_tensors(s.teacher_weights); !bad.empty()) {
    throw runtime::non_finite_error(teacher.path.string(), ": holds NaN or Inf in ", bad.front());
  }
  s.initial = initial_weights(config, s);
  s.pairs = tap_pairs(config.loss.taps, s.base, s.student);
  s.first_timestep = config.first_timestep > 0 ? config.first_timestep : s.spec.first_timestep;
  s.last_timestep = std::min<std::int64_t>(config.last_timestep > 0 ? config.last_timestep : s.spec.last_timestep,
                                           s.schedule.train_timesteps);
  if (s.first_timestep < 0 || s.first_timestep >= s.last_timestep) {
    throw runtime::usage_error("distill: no timesteps in [", s.first_timestep, ", ", s.last_timestep, ")");
  }
  s.key = runtime::sha256(cat(identity(config, options.device).dump(), teacher_sha256, unet::spec_digest(s.spec),
                              runtime::tensors_sha256(s.initial), data_key, " ", schedule_digest(s.schedule), " ",
                              c10::DeviceTypeName(options.device.type()), " ", c10::toString(options.dtype)));
  return s;
}

at::Tensor min_snr_weights(double gamma, const diffusion::NoiseSchedule& schedule, const at::Tensor& timesteps) {
  if (gamma <= 0) return {};
  const at::Tensor snr = diffusion::signal_to_noise(schedule, timesteps);
  const bool velocity = schedule.prediction == diffusion::Prediction::v_prediction;
  return snr.clamp_max(gamma) / (velocity ? snr + 1 : snr);
}

class Trainer {
 public:
  Trainer(const DistillConfig& config, const fs::path& folder, const RunOptions& options, Setting setting)
      : config_(config),
        folder_(folder),
        options_(options),
        s_(std::move(setting)),
        batches_(s_.cache, s_.schedule, static_cast<std::uint64_t>(config.seed), s_.first_timestep, s_.last_timestep,
                 options.device),
        teacher_(s_.base, s_.teacher_weights) {}

  Json run() {
    resume();
    runtime::write_json(folder_ / "config.json", runtime::write_config(config_));
    const unet::Executor student(s_.student, state_.weights);
    const auto began = std::chrono::steady_clock::now();
    runtime::Progress progress(state_.step > 0 ? "distill (continued)" : "distill", config_.steps, "steps",
                               state_.step);
    while (state_.step < config_.steps) {
      const Losses losses = train_step(student);
      report(losses, progress);
      const bool stop = runtime::stop_requested();
      if (stop || state_.step % config_.checkpoint_every == 0 || state_.step == config_.steps) save(losses);
      if (state_.step < config_.steps)
        runtime::throw_if_stopped("the checkpoint is written; run the same command again to go on");
    }
    progress.finish();
    return finish(std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count());
  }

 private:
  fs::path checkpoint() const { return folder_ / "checkpoint.safetensors"; }
  fs::path log() const { return folder_ / "log.jsonl"; }

  void resume() {
    if (fs::exists(checkpoint())) state_ = load_state(checkpoint(), s_.key, options_.device);
    else state_ = initial_state(s_.initial, config_.optimizer, options_.device);
    // Lines after the checkpoint will be written again.
    std::string kept;
    if (fs::exists(log())) {
      std::ifstream lines(log());
      for (std::string line; std::getline(lines, line);) {
        const Json row = Json::parse(line, nullptr, false);
        if (row.is_object() && row.value("step", std::int64_t{0}) <= state_.step &&
            row.value("step", std::int64_t{0}) > 0) {
          kept += line + "\n";
          last_row_ = row;  // a run killed after its last step has nothing else to report
        }
      }
    }
    runtime::write_file(log(), kept);
  }

  Losses train_step(const unet::Executor& student) {
    Losses last;
    for (std::int64_t part = 0; part < config_.accumulate; ++part) {
      const std::int64_t begin = (state_.step * config_.accumulate + part) * config_.batch;
      const Batch batch = batches_.make(begin, begin + config_.batch);
      const AutocastGuard autocast(options_.device, options_.dtype);
      Features teacher;
      {
        const at::NoGradGuard no_grad;
        teacher = run_with_taps(teacher_, batch.inputs, s_.pairs, Side::teacher);
      }
      const Features own = run_with_taps(student, batch.inputs, s_.pairs, Side::student);
      last = compute_losses(config_.loss, own, teacher, s_.pairs, batch.target,
                            min_snr_weights(config_.min_snr_gamma, s_.schedule, batch.inputs.timestep));
      (last.total / static_cast<double>(config_.accumulate)).backward();
    }
    norm_ = update(state_, config_.optimizer, config_.steps);
    return last;
  }

  void require_finite(const Losses& losses) const {
    if (at::isfinite(losses.total.detach()).item<bool>() && at::isfinite(norm_).item<bool>()) return;
    throw runtime::non_finite_error(
        "distill: the loss or its gradient is not finite at step ", state_.step,
        "; a lower optimizer.learning_rate or clip_norm may help. The last good checkpoint is kept.");
  }

  void report(const Losses& losses, runtime::Progress& progress) {
    const bool due = state_.step % config_.log_every == 0 || state_.step == 1 || state_.step == config_.steps;
    if (!due) return progress.update(state_.step);
    require_finite(losses);
    const auto number = [](const at::Tensor& value) { return value.item<double>(); };
    const at::Tensor raw = losses.raw.to(at::kCPU, at::kDouble), balanced = losses.balanced.to(at::kCPU, at::kDouble);
    Json taps = Json::object();
    for (std::size_t l = 0; l < s_.pairs.size(); ++l) {
      const auto row = static_cast<std::int64_t>(l);
      taps[s_.pairs[l].name] = {{"raw", number(raw[row])}, {"balanced", number(balanced[row])}};
    }
    const Json row = {{"step", state_.step},
                      {"loss", number(losses.total.detach())},
                      {"task", number(losses.task)},
                      {"output", number(losses.output)},
                      {"feature", number(losses.feature)},
                      {"gradient_norm", number(norm_)},
                      {"learning_rate", learning_rate(config_.optimizer, state_.step - 1, config_.steps)},
                      {"taps", taps}};
    std::ofstream out(log(), std::ios::app);
    out << row.dump() << "\n";
    out.flush();
    if (!out) throw runtime::resource_error("cannot write ", log().string());
    last_row_ = row;
    progress.update(state_.step, cat("loss ", row["loss"].get<double>()));
  }

  void save(const Losses& losses) {
    require_finite(losses);
    save_state(checkpoint(), state_, s_.key);
  }

  Json finish(double seconds) {
    const TensorMap& best = state_.averaged.empty() ? state_.weights : state_.averaged;
    runtime::write_folder_via(folder_ / "student", runtime::Existing::overwrite,
                              [&](const fs::path& temporary) { unet::save_model(temporary, s_.spec, best); });
    Json result = {{"format", "laptopdiff.distill/1"},
                   {"config", runtime::write_config(config_)},
                   {"key", s_.key},
                   {"steps", state_.step},
                   {"params", {{"base", s_.base.params()}, {"student", s_.student.params()}}},
                   {"macs", {{"base", s_.base.macs()}, {"student", s_.student.macs()}}},
                   {"student_sha256", runtime::tensors_sha256(best)},
                   {"seconds", seconds},
                   {"last", last_row_},
                   {"made_by", options_.made_by}};
    runtime::write_json(folder_ / "result.json", result);
    std::error_code ignored;
    fs::remove(folder_ / "cache.safetensors", ignored);
    return result;
  }

  const DistillConfig& config_;
  fs::path folder_;
  const RunOptions& options_;
  Setting s_;
  BatchMaker batches_;
  unet::Executor teacher_;
  TrainState state_;
  at::Tensor norm_;
  Json last_row_;
};

void clear_run(const fs::path& folder) {
  for (const char* name : {"result.json", "checkpoint.safetensors", "log.jsonl", "config.json"})
    fs::remove(folder / name);
  fs::remove_all(folder / "student");
}

}  // namespace

Json run_distill(const DistillConfig& config, const fs::path& folder, const RunOptions& options) {
  check_config(config);
  if (options.dtype == at::kHalf)
    throw runtime::usage_error("distill: --dtype f16 would need loss scaling; use bf16 or f32");
  const runtime::FolderLock lock(folder, "distill");
  // What the configs alone can refuse is refused before text encoder and VAE are read.
  const auto outline = diffusion::Pipeline::load(config.pipeline, diffusion::Parts::config_only);
  unet::load_architecture(config.teacher.empty() ? outline.unet_folder : fs::path(config.teacher));
  diffusion::Pipeline pipeline = diffusion::Pipeline::load(config.pipeline);
  pipeline.to(options.device);
  const diffusion::Dataset data = diffusion::Dataset::open(config.data.folder);
  const std::vector<std::int64_t> indices =
      pick_images(data, config.data.images, static_cast<std::uint64_t>(config.seed), false);
  const std::string data_key = cache_key(pipeline, data, indices);
  Setting setting = prepare(config, pipeline, data_key, options);
  const bool anew = options.existing == runtime::Existing::overwrite;
  if (!anew && fs::exists(folder / "result.json")) {
    Json result = runtime::read_json(folder / "result.json");
    if (result.value("key", "") == setting.key) {
      runtime::say(folder.string() + ": this run is complete already");
      return result;
    }
    throw runtime::usage_error(
        folder.string(),
        " holds a finished run with another config, model or data; choose another folder, or --overwrite");
  }
  setting.cache = load_or_encode(config.cache.empty() ? folder / "cache.safetensors" : fs::path(config.cache), data_key,
                                 pipeline, data, indices);
  std::optional<runtime::FastGpu> fast;
  if (options.device.is_cuda() && !config.repeatable) fast.emplace();
  if (anew) clear_run(folder);  // not before all that is new has proved to be there
  return Trainer(config, folder, options, std::move(setting)).run();
}

}  // namespace laptopdiff::distill
