// Test-only program: runs metrics on tensors from a file and writes the numbers to a file, for test_metrics.py.
//
//   laptopdiff_metrics_probe JOB.json
//   JOB: {"inputs": in.safetensors, "output": out.safetensors, "jobs": [{"name", "op", ...}, ...]}
//
// Tensors of the output are named after their job: "name" or "name.part".
#include <torch/types.h>

#include <cstdio>
#include <functional>

#include "metrics/classifier.h"
#include "metrics/clip_model.h"
#include "metrics/evaluate.h"
#include "metrics/frechet.h"
#include "metrics/kid.h"
#include "metrics/preprocess.h"
#include "metrics/resize.h"
#include "metrics/scores.h"
#include "runtime/error.h"
#include "runtime/json.h"
#include "runtime/tensors.h"

namespace laptopdiff::metrics {
namespace {

using namespace runtime;

struct Probe {
  TensorMap inputs, outputs;
};

at::Tensor doubles(const std::vector<double>& values) { return torch::tensor(values, at::kDouble); }

const at::Tensor& input(const Probe& probe, ObjectReader& job, const std::string& key) {
  return probe.inputs.at(job.required<std::string>(key));
}

// The order of the Pillow that the tests compare with.
PassOrder pass_order(ObjectReader& job) {
  return job.required<std::int64_t>("pillow") >= 13 ? PassOrder::pillow_13 : PassOrder::pillow_12;
}

void run_resize(Probe& probe, ObjectReader& job, const std::string& name) {
  const PictureSize size{job.required<std::int64_t>("height"), job.required<std::int64_t>("width")};
  const Resample filter = resample_from_pillow(job.required<std::int64_t>("resample"), name);
  probe.outputs[name] = resize(input(probe, job, "image"), size, filter, pass_order(job));
}

void run_prepare(Probe& probe, ObjectReader& job, const std::string& name) {
  Preprocess steps = read_preprocess(job.required<std::string>("folder"));
  steps.pass_order = pass_order(job);
  probe.outputs[name] = prepare(input(probe, job, "image"), steps, job.required<std::int64_t>("channels"));
}

void run_clip(Probe& probe, ObjectReader& job, const std::string& name) {
  const ClipModel model = ClipModel::load(job.required<std::string>("folder"), at::kCPU);
  const at::Tensor images = model.image_embeds(input(probe, job, "images"));
  const at::Tensor texts = model.text_embeds(job.required<std::vector<std::string>>("texts"));
  probe.outputs[name + ".images"] = images;
  probe.outputs[name + ".texts"] = texts;
  probe.outputs[name + ".clip"] = doubles(clip_scores(images, texts));
  probe.outputs[name + ".pick"] = doubles(pick_scores(images, texts, model.logit_scale()));
}

void run_classifier(Probe& probe, ObjectReader& job, const std::string& name) {
  const Classifier model = Classifier::load(job.required<std::string>("folder"), at::kCPU);
  const ClassifierOutput out = model.run(input(probe, job, "images").unbind(0));
  probe.outputs[name + ".logits"] = out.logits;
  probe.outputs[name + ".features"] = out.features;
}

void run_frechet(Probe& probe, ObjectReader& job, const std::string& name) {
  FeatureStatistics x("generated"), y("reference");
  for (const at::Tensor& part : input(probe, job, "x").split(7)) x.add(part);
  y.add(input(probe, job, "y"));
  const FrechetDistance distance = frechet_distance(x, y);
  probe.outputs[name] = doubles({distance.value, distance.mean_term, distance.covariance_term});
}

void run_kid(Probe& probe, ObjectReader& job, const std::string& name) {
  KernelDistanceOptions options;
  options.subsets = job.required<std::int64_t>("subsets");
  options.subset_size = job.required<std::int64_t>("subset_size");
  const KernelDistance distance = kernel_distance(input(probe, job, "x"), input(probe, job, "y"), options);
  probe.outputs[name] = doubles({distance.mean, distance.standard_deviation});
}

void run_evaluate(Probe&, ObjectReader& job, const std::string&) {
  EvaluateOptions options;
  options.images = job.required<std::string>("images");
  options.models = job.required<std::string>("models");
  options.metrics = job.required<std::vector<std::string>>("metrics");
  if (job.has("reference")) options.reference = job.required<std::string>("reference");
  if (job.has("prompts")) options.prompts = job.required<std::string>("prompts");
  if (job.has("labels")) options.labels = job.required<std::string>("labels");
  options.batch = job.get<std::int64_t>("batch", options.batch);
  write_json(job.required<std::string>("output"), evaluate(options));
}

void run(const std::string& path) {
  static const std::map<std::string, std::function<void(Probe&, ObjectReader&, const std::string&)>> kOps = {
      {"resize", run_resize},   {"prepare", run_prepare}, {"clip", run_clip},        {"classifier", run_classifier},
      {"frechet", run_frechet}, {"kid", run_kid},         {"evaluate", run_evaluate}};
  const Json file = read_json(path);
  ObjectReader top(file, path);
  Probe probe;
  probe.inputs = read_tensors(top.required<std::string>("inputs"));
  const auto output = top.required<std::string>("output");
  for (const Json& item : top.raw("jobs")) {
    ObjectReader job(item, path);
    const auto name = job.required<std::string>("name");
    kOps.at(job.required<std::string>("op"))(probe, job, name);
    job.finish();
  }
  write_tensors(output, probe.outputs);
}

}  // namespace
}  // namespace laptopdiff::metrics

int main(int argc, char** argv) {
  try {
    if (argc != 2) throw laptopdiff::runtime::usage_error("usage: laptopdiff_metrics_probe JOB.json");
    laptopdiff::metrics::run(argv[1]);
    return 0;
  } catch (const laptopdiff::runtime::Error& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return static_cast<int>(error.code());
  }
}
