// `bench layers`: how long each step of a base takes on this device, for budgets of latency.
#include <ATen/Parallel.h>
#include <torch/types.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <iostream>

#include "experiments/bench.h"
#include "pruning/latency.h"
#include "runtime/device_name.h"
#include "runtime/error.h"
#include "runtime/gpu.h"
#include "runtime/median.h"
#include "runtime/progress.h"

namespace laptopdiff::experiments {
namespace {

// The clock around one piece of work.
template <typename Work>
double seconds_of(at::Device device, const Work& work) {
  wait_for(device);
  const auto began = std::chrono::steady_clock::now();
  work();
  wait_for(device);
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count();
}

// A step on a copy of the state. On a GPU it is recorded and replayed several times, as forward() replays it: to queue
// an operation and to wait for it takes longer than most operations.
double seconds_of_step(const unet::Executor& executor, const unet::Step& step, const unet::State& before,
                       at::Device device) {
  constexpr int kReplays = 8;
  const auto work = [&] {
    unet::State copy = before;
    executor.run(step, copy);
  };
  const bool queues_nothing = step.kind == unet::StepKind::push || step.kind == unet::StepKind::embed;
  if (!device.is_cuda() || !runtime::has_gpu_graphs() || queues_nothing) return seconds_of(device, work);
  runtime::GpuGraph graph(device, work);
  graph.replay();
  return seconds_of(device,
                    [&] {
                      for (int i = 0; i < kReplays; ++i) graph.replay();
                    }) /
         kReplays;
}

// One run's times, a row a repeat: [steps], [shortcuts], forward.
struct Samples {
  std::vector<std::vector<double>> steps;
  std::map<int, std::vector<double>> shortcuts;
  std::vector<double> forward;
};

// A forward step by step, and what each bypassed layer would leave.
void time_steps(const unet::Executor& executor, const unet::Inputs& inputs, at::Device device, bool counts,
                Samples& samples) {
  const unet::Program& base = executor.program();
  unet::State state = executor.start(inputs);
  for (const unet::Step& step : base.steps) {
    const bool layer = step.kind == unet::StepKind::resnet || step.kind == unet::StepKind::attention;
    if (const auto left = layer ? unet::bypassed_layer(base, step) : std::nullopt) {
      const double seconds = seconds_of_step(executor, *left, state, device);
      if (counts) samples.shortcuts[step.position].push_back(seconds);
    }
    double seconds = 0;
    if (device.is_cuda()) {
      seconds = seconds_of_step(executor, step, state, device);
      executor.run(step, state);
    } else {
      seconds = seconds_of(device, [&] { executor.run(step, state); });
    }
    if (counts) samples.steps[static_cast<std::size_t>(step.position)].push_back(seconds);
  }
}

void print_latency(const Json& json) {
  const double whole = json.at("forward").get<double>();
  std::printf("%-62s %12s %8s\n", "layer", "seconds", "share");
  for (const char* kind : {"units", "shells"}) {
    for (const Json& row : json.at("saved").at(kind)) {
      const auto seconds = row.at("seconds").get<double>();
      std::printf("%-62s %12.6f %7.2f%%\n",
                  row.at(std::string(kind) == "units" ? "layer" : "path").get<std::string>().c_str(), seconds,
                  100 * seconds / whole);
    }
  }
  double sum = 0;
  for (const Json& step : json.at("steps")) sum += step.at("seconds").get<double>();
  std::printf("all steps %.6f s, the forward as one %.6f s\n", sum, whole);
}

// One time that something else on the machine drew out would decide which layers go.
void warn_of_noise(const pruning::Latency& latency, const unet::Program& base) {
  constexpr std::int64_t kFewest = 3;
  if (latency.repeats < kFewest) {
    runtime::warn(runtime::cat("--repeat ", latency.repeats, ": one disturbed run decides these times; take ", kFewest,
                               " or more"));
  }
  for (const int position : pruning::unsteady_steps(latency)) {
    const auto at = static_cast<std::size_t>(position);
    runtime::warn(
        runtime::cat(base.steps[at].path, " (", unet::step_name(base.steps[at].kind), ") took ", latency.steps[at],
                     " s in the middle and ", latency.least[at],
                     " s at least: the machine was busy with something else; measure again, with more --repeat"));
  }
}

}  // namespace

void bench_layers(const BenchOptions& options, const CommonOptions& common, const Json& settings,
                  const Invocation& invocation) {
  require_option(options.output, "--output", invocation);
  if (!options.spec.empty()) throw runtime::usage_error("bench layers: times the layers of a base; leave --spec out");
  check_result(options.output, common, settings);
  BenchSubject subject = open_subject(options, common);
  if (subject.program.steps.size() != subject.base.steps.size())
    throw runtime::usage_error(options.model, " is pruned already; the times are of a full base model");
  if (common.dry_run) return runtime::say("inputs are fine");
  const c10::InferenceMode inference;
  const at::Device device = common.torch_device();
  const unet::Executor executor = unet::Executor::for_inference(subject.base, std::move(subject.weights));
  Samples samples;
  samples.steps.resize(subject.base.steps.size());
  runtime::Progress progress("bench layers", options.repeat, "repeats");
  for (std::int64_t run = 0; run <= options.repeat; ++run) {  // the first is not counted
    const unet::Inputs inputs = unet::to(
        random_inputs(subject.base, options.batch, static_cast<std::uint64_t>(run) * 16), common.torch_dtype(), device);
    time_steps(executor, inputs, device, run > 0, samples);
    if (run == 0) (void)executor.forward(inputs);  // on a GPU the second pass is the one that is recorded
    const double forward = seconds_of(device, [&] { (void)executor.forward(inputs); });
    if (run > 0) samples.forward.push_back(forward);
    progress.update(run);
  }
  progress.finish();
  pruning::Latency latency;
  latency.base = subject.base.config;
  latency.device = device.is_cuda() ? device.str() : "cpu";
  latency.device_name = runtime::device_name(device);
  latency.dtype = common.dtype;
  latency.threads = at::get_num_threads();
  latency.batch = options.batch;
  latency.repeats = options.repeat;
  latency.geometry = subject.base.geometry;
  for (const auto& times : samples.steps) {
    latency.steps.push_back(runtime::median(times));
    latency.least.push_back(*std::min_element(times.begin(), times.end()));
  }
  for (const auto& [position, times] : samples.shortcuts) latency.shortcuts[position] = runtime::median(times);
  latency.forward = runtime::median(samples.forward);
  latency.made_by = provenance(invocation);
  warn_of_noise(latency, subject.base);
  const Json json = pruning::latency_json(latency);
  runtime::write_json(options.output, json);
  if (common.json) std::cout << runtime::dump_json(json);
  else print_latency(json);
}

}  // namespace laptopdiff::experiments
