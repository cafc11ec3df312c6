// `bench`: times of one forward, one scoring pass over all units, or one distillation step, on random inputs.
#include "experiments/bench.h"

#include <ATen/Context.h>
#include <ATen/Parallel.h>
#include <sys/resource.h>
#include <torch/types.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <ctime>
#include <functional>
#include <iostream>

#include "distill/losses.h"
#include "distill/optimizer.h"
#include "pruning/output_loss.h"
#include "runtime/error.h"
#include "runtime/gpu.h"
#include "runtime/median.h"

namespace laptopdiff::experiments {
namespace {

struct Timing {
  double median_s = 0, min_s = 0;
  double min_cpu_s = 0;  // of all threads together: on a shared machine it says more than time by the clock
};

// Fresh inputs each run, made before the clock starts.
Timing measure(const BenchOptions& options, at::Device device,
               const std::function<std::function<void()>(std::uint64_t)>& prepare) {
  std::vector<double> seconds, cpu;
  const std::int64_t set_up = device.is_cuda() ? 2 : 1;  // there the second pass is recorded
  for (std::int64_t run = 0; run < set_up + options.repeat; ++run) {
    const auto work = prepare(static_cast<std::uint64_t>(run) * 16);
    wait_for(device);
    const std::clock_t cpu_began = std::clock();
    const auto began = std::chrono::steady_clock::now();
    work();
    wait_for(device);
    if (run < set_up) continue;
    seconds.push_back(std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count());
    cpu.push_back(static_cast<double>(std::clock() - cpu_began) / CLOCKS_PER_SEC);
  }
  return {runtime::median(seconds), *std::min_element(seconds.begin(), seconds.end()),
          *std::min_element(cpu.begin(), cpu.end())};
}

Timing bench_forward(const BenchOptions& options, const CommonOptions& common, BenchSubject& subject) {
  const c10::InferenceMode inference;
  const unet::Executor executor = unet::Executor::for_inference(subject.program, std::move(subject.weights));
  return measure(options, common.torch_device(), [&](std::uint64_t salt) {
    return [&executor, inputs = unet::to(random_inputs(subject.program, options.batch, salt), common.torch_dtype(),
                                         common.torch_device())] { executor.forward(inputs); };
  });
}

Timing bench_score(const BenchOptions& options, const CommonOptions& common, BenchSubject& subject, std::int64_t& macs,
                   double& naive_macs) {
  const unet::Executor executor = unet::Executor::for_inference(subject.base, std::move(subject.weights));
  pruning::OutputLossOptions run;
  run.batch = options.batch;
  run.engine.memory_bytes = options.memory.bytes(common.torch_device());
  pruning::OutputLossReport report;
  const Timing timing = measure(options, common.torch_device(), [&](std::uint64_t salt) {
    return [&, inputs = unet::to(random_inputs(subject.base, options.samples, salt), common.torch_dtype(),
                                 common.torch_device())] {
      pruning::score_output_loss(subject.base, executor, inputs, run, &report);
    };
  });
  macs = report.macs_per_sample * options.samples;
  naive_macs =
      static_cast<double>(macs) + report.forwards_saved * static_cast<double>(subject.base.macs() * options.samples);
  return timing;
}

Timing bench_distill(const BenchOptions& options, const CommonOptions& common, const BenchSubject& subject) {
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

double peak_gpu_mib(at::Device device) { return static_cast<double>(runtime::peak_gpu_bytes(device)) / (1 << 20); }

}  // namespace

void run_bench(const Invocation& invocation) {
  const auto [options, common, settings] = parse_command<BenchOptions>(invocation, {"kind", "model"});
  require_option(options.model, "MODEL", invocation);
  if (options.batch < 1 || options.repeat < 1 || options.samples < 1)
    throw runtime::usage_error("bench: --batch, --repeat and --samples must be at least 1");
  check_geometry(options.latent, options.tokens);
  if (options.kind == "layers") return bench_layers(options, common, settings, invocation);
  if (!options.output.empty())
    throw runtime::usage_error("bench ", options.kind, ": writes no file; leave --output out");
  BenchSubject subject = open_subject(options, common);
  Timing timing;
  std::int64_t macs = 0;
  double naive_macs = 0;  // of the plain loop over removals
  if (options.kind == "forward") {
    timing = bench_forward(options, common, subject);
    macs = subject.program.macs() * options.batch;
  } else if (options.kind == "score") {
    timing = bench_score(options, common, subject, macs, naive_macs);
  } else if (options.kind == "distill") {
    if (common.torch_dtype() != at::kFloat) throw runtime::usage_error("bench distill: only --dtype f32");
    timing = bench_distill(options, common, subject);
    macs = (subject.base.macs() + 3 * subject.program.macs()) * options.batch;  // a backward pass is two forwards
  } else {
    throw runtime::usage_error("bench: unknown kind `", options.kind, "`",
                               runtime::did_you_mean(options.kind, {"forward", "score", "distill", "layers"}));
  }
  Json result = {{"kind", options.kind},
                 {"median_s", timing.median_s},
                 {"min_s", timing.min_s},
                 {"min_cpu_s", timing.min_cpu_s},
                 {"peak_rss_mb", peak_rss_mib()},
                 {"peak_gpu_mb", peak_gpu_mib(common.torch_device())},
                 {"flops", 2 * macs},
                 {"threads", at::get_num_threads()},
                 {"made_by", provenance(invocation)}};
  if (naive_macs > 0) result["naive_flops"] = 2 * naive_macs;
  if (common.json) std::cout << runtime::dump_json(result);
  else
    std::printf(
        "%s: median %.4f s, min %.4f s, %.1f GFLOP/s, peak %.0f MiB%s\n", options.kind.c_str(), timing.median_s,
        timing.min_s, 2e-9 * static_cast<double>(macs) / timing.median_s, peak_rss_mib(),
        common.torch_device().is_cuda()
            ? runtime::cat(" and ", std::llround(peak_gpu_mib(common.torch_device())), " MiB on the GPU").c_str()
            : "");
}

}  // namespace laptopdiff::experiments
