// `bench`: times of one forward, one scoring pass over all units, or one distillation step, on random inputs.
#include <ATen/Context.h>
#include <ATen/Parallel.h>
#include <sys/resource.h>
#include <torch/cuda.h>
#include <torch/types.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <functional>
#include <iostream>

#include "distill/losses.h"
#include "distill/optimizer.h"
#include "experiments/command.h"
#include "experiments/verbs.h"
#include "pruning/output_loss.h"
#include "runtime/error.h"
#include "runtime/median.h"
#include "runtime/random.h"

namespace laptopdiff::experiments {
namespace {

struct BenchOptions {
  std::string kind, model, spec;
  std::int64_t batch = 1, latent = 0, repeat = 5, samples = 1, tokens = 77;
  template <typename V>
  void fields(V& v) {
    v("kind", kind, "forward, score (all single removals), or distill (one step)");
    v("model", model, "U-Net folder; a config.json alone is run with random weights");
    v("spec", spec, "spec.json: the pruned model (forward), or the student (distill)");
    v("batch", batch, "samples at once");
    v("latent", latent, "latent size; 0: the config's");
    v("tokens", tokens, "text tokens");
    v("repeat", repeat, "timed runs, after one that is not timed");
    v("samples", samples, "calibration samples of a scoring pass");
  }
};

at::Tensor random_tensor(const std::vector<std::int64_t>& shape, std::uint64_t sample, double scale = 1) {
  at::Tensor values = at::empty(shape, at::kFloat);
  runtime::Stream stream(0, runtime::Purpose::test, 0, sample);
  stream.fill_normal({values.data_ptr<float>(), static_cast<std::size_t>(values.numel())});
  return values * scale;
}

// Weights that keep activations near unit size, so that no path is benched on zeros, NaN or denormals.
runtime::TensorMap random_weights(const unet::Program& program) {
  runtime::TensorMap weights;
  for (const unet::Step& step : program.steps) {
    for (const unet::Parameter& p : unet::step_parameters(program.config, program.stages, step)) {
      std::int64_t fan_in = 1;
      for (std::size_t i = 1; i < p.shape.size(); ++i) fan_in *= p.shape[i];
      weights[p.name] = p.shape.size() > 1 ? at::randn(p.shape) / std::sqrt(static_cast<double>(fan_in))
                                           : at::full(p.shape, p.name.ends_with("weight") ? 1.0 : 0.0);
    }
  }
  return weights;
}

unet::Inputs random_inputs(const unet::Program& program, std::int64_t batch, std::uint64_t salt) {
  const unet::Config& c = program.config;
  unet::Inputs inputs;
  inputs.sample = random_tensor({batch, c.in_channels, program.geometry.height, program.geometry.width}, salt);
  inputs.timestep = at::full({batch}, static_cast<std::int64_t>(500 + salt % 400), at::kLong);
  for (const unet::Stage& stage : program.stages) {
    if (stage.context > 0)
      inputs.encoder_hidden_states = random_tensor({batch, program.geometry.tokens, stage.context}, salt + 1);
  }
  if (c.text_time) {
    inputs.time_ids = at::full({batch, 6}, 1024.0);
    inputs.text_embeds = random_tensor({batch, c.add_projection_dim - 6 * c.addition_time_embed_dim}, salt + 2);
  }
  if (c.class_embedding == unet::ClassEmbedding::table) inputs.class_labels = at::zeros({batch}, at::kLong);
  else if (c.class_embedding != unet::ClassEmbedding::none)
    throw runtime::usage_error("bench: class embeddings other than a table are not set up here");
  return inputs;
}

struct Timing {
  double median_s = 0, min_s = 0;
};

// Fresh inputs each run, made before the clock starts.
Timing measure(const BenchOptions& options, at::Device device,
               const std::function<std::function<void()>(std::uint64_t)>& prepare) {
  std::vector<double> seconds;
  for (std::int64_t run = 0; run <= options.repeat; ++run) {
    const auto work = prepare(static_cast<std::uint64_t>(run) * 16);
    const auto began = std::chrono::steady_clock::now();
    work();
    if (device.is_cuda()) torch::cuda::synchronize(device.index());
    if (run > 0) seconds.push_back(std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count());
  }
  return {runtime::median(seconds), *std::min_element(seconds.begin(), seconds.end())};
}

struct Subject {
  unet::Program base, program;
  runtime::TensorMap weights;  // of the base, converted
};

Subject open_subject(const BenchOptions& options, const CommonOptions& common) {
  unet::Spec spec = unet::load_architecture(options.model);
  const unet::Geometry geometry{static_cast<int>(options.latent), static_cast<int>(options.latent),
                                static_cast<int>(options.tokens)};
  Subject subject;
  subject.base = unet::build_base(spec.base, geometry);
  if (!options.spec.empty()) spec = load_spec_for(options.spec, spec);
  subject.program = unet::prune(subject.base, spec);
  const bool only_config = std::filesystem::path(options.model).extension() == ".json";
  const runtime::TensorMap weights =
      only_config ? random_weights(subject.base) : unet::load_model(options.model).weights;
  subject.weights = unet::convert(weights, common.torch_dtype(), common.torch_device());
  return subject;
}

Timing bench_forward(const BenchOptions& options, const CommonOptions& common, const Subject& subject) {
  const c10::InferenceMode inference;
  const unet::Executor executor(subject.program, subject.weights);
  return measure(options, common.torch_device(), [&](std::uint64_t salt) {
    return [&executor, inputs = unet::to(random_inputs(subject.program, options.batch, salt), common.torch_dtype(),
                                         common.torch_device())] { executor.forward(inputs); };
  });
}

Timing bench_score(const BenchOptions& options, const CommonOptions& common, const Subject& subject,
                   std::int64_t& macs) {
  const unet::Executor executor(subject.base, subject.weights);
  pruning::OutputLossOptions run;
  run.batch = options.batch;
  pruning::OutputLossReport report;
  const Timing timing = measure(options, common.torch_device(), [&](std::uint64_t salt) {
    return [&, inputs = unet::to(random_inputs(subject.base, options.samples, salt), common.torch_dtype(),
                                 common.torch_device())] {
      pruning::score_output_loss(subject.base, executor, inputs, run, &report);
    };
  });
  macs = report.macs_per_sample * options.samples;
  return timing;
}

Timing bench_distill(const BenchOptions& options, const CommonOptions& common, const Subject& subject) {
  const at::Device device = common.torch_device();
  const unet::Executor teacher(subject.base, subject.weights);
  distill::OptimizerConfig optimizer;
  distill::TrainState state =
      distill::initial_state(unet::select_weights(subject.program, subject.weights, "bench"), optimizer, device);
  const unet::Executor student(subject.program, state.weights);
  const auto pairs = distill::tap_pairs("blocks", subject.base, subject.program);
  return measure(options, device, [&](std::uint64_t salt) {
    return [&, inputs = unet::to(random_inputs(subject.base, options.batch, salt), at::kFloat, device)] {
      distill::Features of_teacher;
      {
        const at::NoGradGuard no_grad;
        of_teacher = distill::run_with_taps(teacher, inputs, pairs, distill::Side::teacher);
      }
      const auto own = distill::run_with_taps(student, inputs, pairs, distill::Side::student);
      distill::compute_losses({}, own, of_teacher, pairs, inputs.sample, {}).total.backward();
      distill::update(state, optimizer, options.repeat + 1);
    };
  });
}

double peak_rss_mib() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return static_cast<double>(usage.ru_maxrss) / 1024;  // Linux counts KiB
}

}  // namespace

void run_bench(const Invocation& invocation) {
  const auto [options, common, settings] = parse_command<BenchOptions>(invocation, {"kind", "model"});
  require_option(options.model, "MODEL", invocation);
  if (options.batch < 1 || options.repeat < 1 || options.samples < 1 || options.tokens < 1 || options.latent < 0) {
    throw runtime::usage_error("bench: --batch, --repeat, --samples and --tokens must be at least 1");
  }
  const Subject subject = open_subject(options, common);
  Timing timing;
  std::int64_t macs = 0;
  if (options.kind == "forward") {
    timing = bench_forward(options, common, subject);
    macs = subject.program.macs() * options.batch;
  } else if (options.kind == "score") {
    timing = bench_score(options, common, subject, macs);
  } else if (options.kind == "distill") {
    if (common.torch_dtype() != at::kFloat) throw runtime::usage_error("bench distill: only --dtype f32");
    timing = bench_distill(options, common, subject);
    macs = (subject.base.macs() + 3 * subject.program.macs()) * options.batch;  // a backward pass is two forwards
  } else {
    throw runtime::usage_error("bench: unknown kind `", options.kind, "`",
                               runtime::did_you_mean(options.kind, {"forward", "score", "distill"}));
  }
  const Json result = {{"kind", options.kind},
                       {"median_s", timing.median_s},
                       {"min_s", timing.min_s},
                       {"peak_rss_mb", peak_rss_mib()},
                       {"flops", 2 * macs},
                       {"threads", at::get_num_threads()},
                       {"made_by", provenance(invocation)}};
  if (common.json) std::cout << runtime::dump_json(result);
  else
    std::printf("%s: median %.4f s, min %.4f s, %.1f GFLOP/s, peak %.0f MiB\n", options.kind.c_str(), timing.median_s,
                timing.min_s, 2e-9 * static_cast<double>(macs) / timing.median_s, peak_rss_mib());
}

}  // namespace laptopdiff::experiments
