#include "metrics/evaluate.h"

#include <torch/types.h>

#include <algorithm>
#include <map>
#include <numeric>

#include "metrics/bootstrap.h"
#include "metrics/classifier.h"
#include "metrics/clip_model.h"
#include "metrics/frechet.h"
#include "metrics/image_batches.h"
#include "metrics/kid.h"
#include "metrics/prompt_file.h"
#include "metrics/scores.h"
#include "runtime/error.h"
#include "runtime/hash.h"
#include "runtime/json.h"

namespace laptopdiff::metrics {
namespace {

using namespace runtime;
namespace fs = std::filesystem;

enum class Needs { prompts, reference, labels };
struct Metric {
  const char* name;
  const char* model;
  Needs needs;
};
constexpr Metric kMetrics[] = {{"clip", "clip", Needs::prompts},
                               {"pick", "pick", Needs::prompts},
                               {"fid", "classifier", Needs::reference},
                               {"kid", "classifier", Needs::reference},
                               {"accuracy", "classifier", Needs::labels}};

struct Inputs {
  ImageSet images;
  std::optional<ImageSet> reference;
  std::vector<std::string> prompts, labels;
  Json provenance = Json::object();
};

struct ClassifierPass {
  at::Tensor features, classes;  // f32 [N, D], int64 [N]
  SizeRange sizes;
};

bool wants(const EvaluateOptions& options, const std::string& metric) {
  return std::find(options.metrics.begin(), options.metrics.end(), metric) != options.metrics.end();
}

bool wants_model(const EvaluateOptions& options, const std::string& model) {
  return std::any_of(std::begin(kMetrics), std::end(kMetrics),
                     [&](const Metric& metric) { return model == metric.model && wants(options, metric.name); });
}

void check_needs(const EvaluateOptions& options, const Metric& metric) {
  const auto need = [&](bool given, const char* what) {
    if (!given) throw usage_error("metric ", metric.name, " needs ", what);
  };
  if (metric.needs == Needs::prompts) need(options.prompts.has_value(), "--prompts FILE, a prompt a line");
  if (metric.needs == Needs::reference) need(options.reference.has_value(), "--reference DIR, real pictures");
  if (metric.needs == Needs::labels) need(options.labels.has_value(), "--labels FILE, a class a line");
  const fs::path folder = options.models / metric.model;
  if (!fs::is_directory(folder)) {
    throw input_error("metric ", metric.name, " needs the model folder ", folder.string(), ", which is not there");
  }
}

void check(const EvaluateOptions& options) {
  const std::vector<std::string>& known = evaluate_metrics();
  if (options.metrics.empty()) throw usage_error("no metrics asked for; expected some of ", join(known));
  for (const std::string& name : options.metrics) {
    if (std::find(known.begin(), known.end(), name) != known.end()) continue;
    throw usage_error("unknown metric `", name, "`", did_you_mean(name, known));
  }
  if (options.batch < 1) throw usage_error("batch must be at least 1, is ", options.batch);
  if (options.lines_limit < 0) throw usage_error("limit of lines must not be negative, is ", options.lines_limit);
  if (options.reference_limit < 0)
    throw usage_error("reference limit must not be negative, is ", options.reference_limit);
  for (const Metric& metric : kMetrics) {
    if (wants(options, metric.name)) check_needs(options, metric);
  }
}

std::vector<std::string> read_lines_for(const ImageSet& images, const fs::path& path, const char* what,
                                        std::vector<std::string> (*read)(const fs::path&), std::int64_t limit,
                                        Json& provenance) {
  std::vector<std::string> lines = read(path);
  if (limit > 0 && static_cast<std::int64_t>(lines.size()) > limit) lines.resize(static_cast<std::size_t>(limit));
  if (static_cast<std::int64_t>(lines.size()) != images.count()) {
    throw input_error(path.string(), " has ", lines.size(), " ", what, ", ", images.folder().string(), " has ",
                      images.count(), " pictures; line i must belong to picture i");
  }
  provenance[what] = {{"file", path.string()}, {"count", lines.size()}, {"sha256", sha256_file(path)}};
  return lines;
}

Json describe(const ImageSet& images) {
  return {{"folder", images.folder().string()}, {"count", images.count()}, {"digest", images.digest()}};
}

bool needed(const EvaluateOptions& options, Needs needs) {
  return std::any_of(std::begin(kMetrics), std::end(kMetrics),
                     [&](const Metric& metric) { return metric.needs == needs && wants(options, metric.name); });
}

Inputs open_inputs(const EvaluateOptions& options) {
  Inputs in{ImageSet::open_numbered(options.images), std::nullopt, {}, {}};
  if (needed(options, Needs::prompts)) {
    in.prompts =
        read_lines_for(in.images, *options.prompts, "prompts", read_prompts, options.lines_limit, in.provenance);
  }
  if (needed(options, Needs::labels)) {
    in.labels = read_lines_for(in.images, *options.labels, "labels", read_labels, options.lines_limit, in.provenance);
  }
  if (needed(options, Needs::reference)) {
    in.reference = ImageSet::open_reference(*options.reference);
    if (options.reference_limit > 0) in.reference->limit(options.reference_limit);
    in.provenance["reference"] = describe(*in.reference);
  }
  in.provenance["images"] = describe(in.images);
  return in;
}

Json describe_model(const fs::path& folder, const Preprocess& preprocess) {
  Json weights = Json::object();
  for (const fs::directory_entry& entry : fs::directory_iterator(folder)) {
    if (entry.path().extension() == ".safetensors") {
      weights[entry.path().filename().string()] = sha256_file(entry.path());
    }
  }
  return {{"folder", folder.string()}, {"weights_sha256", weights}, {"preprocess", describe(preprocess)}};
}

void note_sizes(const SizeRange& sizes, Json& images) {
  if (sizes.mixed) {
    images["size"] = "mixed";
    images["smallest"] = size_text(sizes.smallest);
    images["largest"] = size_text(sizes.largest);
  } else {
    images["size"] = size_text(sizes.first);
  }
}

Json describe(const MeanEstimate& estimate) {
  return {{"value", estimate.mean},
          {"standard_error", estimate.standard_error},
          {"interval", {estimate.low, estimate.high}},
          {"confidence", estimate.confidence},
          {"resamples", estimate.resamples},
          {"count", estimate.count}};
}

Json describe_mean(const std::vector<double>& values, const EvaluateOptions& options, const std::string& metric) {
  return describe(bootstrap_mean(values, {options.seed, options.resamples, 0.95}, metric));
}

// clip or pick: both embed all pictures and prompts, and differ in what they make of the cosine.
void evaluate_pairs(const EvaluateOptions& options, const Inputs& in, const std::string& metric, Json& result) {
  const fs::path folder = options.models / metric;
  const ClipModel model = ClipModel::load(folder, options.device);
  std::vector<at::Tensor> parts;
  const SizeRange sizes = for_each_batch(in.images, options.batch, metric,
                                         [&](const auto& pictures) { parts.push_back(model.image_embeds(pictures)); });
  const at::Tensor images = at::cat(parts), texts = model.text_embeds(in.prompts);
  const bool pick = metric == "pick";
  Json& out = result["metrics"][metric];
  out = describe_mean(pick ? pick_scores(images, texts, model.logit_scale()) : clip_scores(images, texts), options,
                      metric);
  out["formula"] = pick ? "exp(logit_scale) * cosine(picture, prompt)" : "cosine(picture, prompt)";
  if (pick) out["logit_scale"] = model.logit_scale();
  note_sizes(sizes, result["images"]);
  result["models"][metric] = describe_model(folder, model.preprocess());
}

ClassifierPass classify(const Classifier& model, const ImageSet& images, const EvaluateOptions& options,
                        const std::string& stage) {
  std::vector<at::Tensor> features, classes;
  const SizeRange sizes = for_each_batch(images, options.batch, stage, [&](const auto& pictures) {
    const ClassifierOutput out = model.run(pictures);
    features.push_back(out.features);
    classes.push_back(out.logits.argmax(-1));
  });
  return {at::cat(features), at::cat(classes), sizes};
}

void refuse_mixed_sizes(const ImageSet& images, const SizeRange& sizes) {
  if (!sizes.mixed) return;
  throw input_error(images.folder().string(), ": fid and kid need pictures of one size, these are ",
                    size_text(sizes.smallest), " to ", size_text(sizes.largest),
                    "; resizing by several factors would be measured along with the pictures");
}

Json frechet_json(const ClassifierPass& generated, const ClassifierPass& reference) {
  FeatureStatistics ours("generated"), real("reference");
  ours.add(generated.features);
  real.add(reference.features);
  const FrechetDistance distance = frechet_distance(ours, real);
  return {{"value", distance.value},
          {"mean_term", distance.mean_term},
          {"covariance_term", distance.covariance_term},
          {"features", "pooled features of classifier/, not Inception"},
          {"width", ours.width()},
          {"count", ours.count()},
          {"reference_count", real.count()},
          {"warnings", distance.warnings}};
}

Json kernel_json(const ClassifierPass& generated, const ClassifierPass& reference, const EvaluateOptions& options) {
  const std::int64_t fewest = std::min(generated.features.size(0), reference.features.size(0));
  const KernelDistance distance =
      kernel_distance(generated.features, reference.features,
                      {options.seed, options.kid_subsets, std::min(options.kid_subset_size, fewest)});
  return {{"value", distance.mean},
          {"standard_deviation", distance.standard_deviation},
          {"subsets", distance.subsets},
          {"subset_size", distance.subset_size},
          {"features", "pooled features of classifier/, not Inception"},
          {"width", generated.features.size(1)},
          {"count", generated.features.size(0)},
          {"reference_count", reference.features.size(0)}};
}

Json accuracy_json(const Classifier& model, const at::Tensor& classes, const std::vector<std::string>& labels,
                   const EvaluateOptions& options) {
  std::vector<double> right;
  std::map<std::string, std::vector<double>> by_class;
  for (std::size_t i = 0; i < labels.size(); ++i) {
    const std::int64_t wanted = model.class_of(labels[i], cat(options.labels->string(), " line ", i + 1));
    const std::int64_t found = classes[static_cast<std::int64_t>(i)].item<std::int64_t>();
    right.push_back(found == wanted ? 1 : 0);
    by_class[model.config().labels[static_cast<std::size_t>(wanted)]].push_back(right.back());
  }
  Json json = describe_mean(right, options, "accuracy");
  for (const auto& [name, hits] : by_class) {
    const double total = std::accumulate(hits.begin(), hits.end(), 0.0);
    json["classes"][name] = {{"value", total / static_cast<double>(hits.size())}, {"count", hits.size()}};
  }
  return json;
}

void evaluate_classifier(const EvaluateOptions& options, const Inputs& in, Json& result) {
  const fs::path folder = options.models / "classifier";
  const Classifier model = Classifier::load(folder, options.device);
  const ClassifierPass generated = classify(model, in.images, options, "classifier");
  note_sizes(generated.sizes, result["images"]);
  Json& out = result["metrics"];
  if (in.reference) {
    refuse_mixed_sizes(in.images, generated.sizes);
    const ClassifierPass reference = classify(model, *in.reference, options, "reference");
    refuse_mixed_sizes(*in.reference, reference.sizes);
    note_sizes(reference.sizes, result["reference"]);
    if (wants(options, "fid")) out["fid"] = frechet_json(generated, reference);
    if (wants(options, "kid")) out["kid"] = kernel_json(generated, reference, options);
  }
  if (wants(options, "accuracy")) out["accuracy"] = accuracy_json(model, generated.classes, in.labels, options);
  result["models"]["classifier"] = describe_model(folder, model.preprocess());
}

}  // namespace

const std::vector<std::string>& evaluate_metrics() {
  static const std::vector<std::string> names = [] {
    std::vector<std::string> list;
    for (const Metric& metric : kMetrics) list.emplace_back(metric.name);
    return list;
  }();
  return names;
}

nlohmann::json evaluate(const EvaluateOptions& options) {
  check(options);
  const Inputs in = open_inputs(options);
  Json result = in.provenance;
  result["format"] = "laptopdiff.metrics/1";
  result["seed"] = options.seed;
  for (const char* metric : {"clip", "pick"}) {
    if (wants(options, metric)) evaluate_pairs(options, in, metric, result);
  }
  if (wants_model(options, "classifier")) evaluate_classifier(options, in, result);
  return result;
}

}  // namespace laptopdiff::metrics
