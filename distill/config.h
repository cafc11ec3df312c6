// What one distillation run is: every field with its default, once.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace laptopdiff::distill {

struct DataConfig {
  std::string folder;
  std::int64_t images = 0;
  template <typename V>
  void fields(V& v) {
    v("folder", folder, "data folder: metadata.jsonl with images.safetensors or PNG files");
    v("images", images, "use so many pictures, picked by the seed; 0: all");
  }
};

struct OptimizerConfig {
  double learning_rate = 5e-5;
  std::string schedule = "constant";
  std::int64_t warmup = 0;
  double beta1 = 0.9, beta2 = 0.999, epsilon = 1e-8, weight_decay = 0.01, clip_norm = 1.0;
  double ema_decay = 0.9999;
  template <typename V>
  void fields(V& v) {
    v("learning_rate", learning_rate, "AdamW's step size after warm-up");
    v("schedule", schedule, "constant, linear or cosine decay to 0 at the last step");
    v("warmup", warmup, "steps of linear warm-up");
    v("beta1", beta1, "AdamW");
    v("beta2", beta2, "AdamW");
    v("epsilon", epsilon, "AdamW");
    v("weight_decay", weight_decay, "AdamW, decoupled");
    v("clip_norm", clip_norm, "gradient norm is cut to this; 0: never");
    v("ema_decay", ema_decay, "largest decay of the averaged weights, warmed up as (1+s)/(10+s); 0: no averaging");
  }
};

struct LossConfig {
  double task = 1, output = 1, feature = 1;
  std::string taps = "units", balance = "rel_sq";
  template <typename V>
  void fields(V& v) {
    v("task", task, "weight of mean (student - target)^2");
    v("output", output, "weight of mean (student - teacher)^2");
    v("feature", feature, "weight of the sum of balanced feature terms");
    v("taps", taps, "which features: bk (BK-SDM's hooks), blocks (every stage), units (every kept unit)");
    v("balance", balance, "how feature terms are weighted: plain, rel_sq, rel_norm, norm_max, norm_mean");
  }
};

struct DistillConfig {
  std::string pipeline, teacher, spec, init;
  DataConfig data;
  std::int64_t steps = 1000, batch = 64, accumulate = 1, seed = 0;
  OptimizerConfig optimizer;
  LossConfig loss;
  std::int64_t first_timestep = 0, last_timestep = 0;
  double min_snr_gamma = 0;
  std::int64_t log_every = 10, checkpoint_every = 200;
  std::string cache;
  bool repeatable = true;
  template <typename V>
  void fields(V& v) {
    v("pipeline", pipeline, "diffusers pipeline folder: VAE, text encoder, scheduler, and the teacher's U-Net");
    v("teacher", teacher, "U-Net folder of the teacher, where it is not the pipeline's");
    v("spec", spec, "spec.json of the student");
    v("init", init, "student folder to start from; empty: the teacher's weights");
    v("data", data, "training pictures");
    v("steps", steps, "updates");
    v("batch", batch, "samples a forward pass");
    v("accumulate", accumulate, "forward passes an update");
    v("seed", seed, "of data order, timesteps and noise");
    v("optimizer", optimizer, "AdamW and averaging");
    v("loss", loss, "task + output + feature terms");
    v("first_timestep", first_timestep, "train on timesteps from here; 0: the spec's");
    v("last_timestep", last_timestep, "up to, not including; 0: the spec's");
    v("min_snr_gamma", min_snr_gamma, "min-SNR weighting of the task term; 0: off");
    v("log_every", log_every, "steps between log lines");
    v("checkpoint_every", checkpoint_every, "steps between checkpoints");
    v("cache", cache, "where encoded pictures and captions are kept between runs; empty: in the run folder");
    v("repeatable", repeatable,
      "on a GPU: the same bits in every run and after every kill; false: the fastest algorithms, TF32 in f32");
  }
};

// Throws Error(usage) for values that cannot be trained with, naming the field.
void check_config(const DistillConfig& config);

}  // namespace laptopdiff::distill
