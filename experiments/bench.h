// What `bench` times: a model on the device, and inputs of its shape.
#pragma once

#include "experiments/verbs.h"

namespace laptopdiff::experiments {

struct BenchOptions {
  std::string kind, model, spec, output;
  std::int64_t batch = 1, latent = 0, repeat = 5, samples = 1, tokens = 77;
  MemoryOption memory;
  template <typename V>
  void fields(V& v) {
    v("kind", kind, "forward, score (all single removals), distill (one step), or layers (every step)");
    v("model", model, "U-Net folder; a config.json alone is run with random weights");
    v("spec", spec, "spec.json: the pruned model (forward), or the student (distill)");
    v("output", output, "latency.json to write (layers)");
    v("batch", batch, "samples at once");
    v("latent", latent, "latent size; 0: the config's");
    v("tokens", tokens, "text tokens");
    v("repeat", repeat, "timed runs, after those that set up");
    v("samples", samples, "calibration samples of a scoring pass");
    memory.fields(v);
  }
};

// Weights that keep activations near unit size, so that no path is benched on zeros, NaN or denormals.
runtime::TensorMap random_weights(const unet::Program& program, at::ScalarType dtype, at::Device device = at::kCPU);

// f32 on the CPU. Other salts give other numbers.
unet::Inputs random_inputs(const unet::Program& program, std::int64_t batch, std::uint64_t salt);

struct BenchSubject {
  unet::Program base, program;
  runtime::TensorMap weights;  // of the base, converted
};
// A config.json alone gets random weights. Throws as load_architecture and load_spec_for.
BenchSubject open_subject(const BenchOptions& options, const CommonOptions& common);

// Until the device has done what it was given.
void wait_for(at::Device device);

// Times every step and writes latency.json.
void bench_layers(const BenchOptions& options, const CommonOptions& common, const Json& settings,
                  const Invocation& invocation);

}  // namespace laptopdiff::experiments
