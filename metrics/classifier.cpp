#include "metrics/classifier.h"

#include <torch/nn/module.h>
#include <torch/nn/modules/container/modulelist.h>
#include <torch/types.h>

#include <algorithm>

#include "diffusion/component.h"
#include "diffusion/layers.h"
#include "runtime/error.h"
#include "runtime/tensors.h"
#include "runtime/weight_files.h"

namespace laptopdiff::metrics {
namespace {

using namespace runtime;
namespace fs = std::filesystem;
using std::int64_t;

constexpr double kBatchNormEps = 1e-5;
constexpr int64_t kBottleneckReduction = 4;

// Batch normalisation by the stored running statistics, never by the batch's.
class Normalization : public torch::nn::Module {
 public:
  explicit Normalization(int64_t channels) {
    weight_ = register_parameter("weight", torch::empty({channels}), false);
    bias_ = register_parameter("bias", torch::empty({channels}), false);
    running_mean_ = register_buffer("running_mean", torch::empty({channels}));
    running_var_ = register_buffer("running_var", torch::empty({channels}));
  }
  at::Tensor forward(const at::Tensor& x) {
    return at::batch_norm(x, weight_, bias_, running_mean_, running_var_, false, 0, kBatchNormEps, false);
  }

 private:
  at::Tensor weight_, bias_, running_mean_, running_var_;
};

// Convolution and normalisation, without the activation.
class ConvLayer : public torch::nn::Module {
 public:
  ConvLayer(int64_t in, int64_t out, int64_t kernel, int64_t stride)
      : convolution_(in, out, diffusion::ConvShape{kernel, stride, kernel / 2}, diffusion::Bias::without),
        normalization_(std::make_shared<Normalization>(out)) {
    register_module("convolution", convolution_);
    register_module("normalization", normalization_);
  }
  at::Tensor forward(const at::Tensor& x) { return normalization_->forward(convolution_->forward(x)); }

 private:
  diffusion::Conv2d convolution_;
  std::shared_ptr<Normalization> normalization_;
};

// A module that only gives its children's names a prefix.
class Group : public torch::nn::Module {
 public:
  template <typename M>
  std::shared_ptr<M> add(const std::string& name, std::shared_ptr<M> module) {
    return register_module(name, std::move(module));
  }
};

struct ConvSpec {
  int64_t in, out, kernel, stride;
};

std::vector<ConvSpec> residual_branch(const ResNetConfig& config, int64_t in, int64_t out, int64_t stride) {
  if (config.layer_type == "basic") return {{in, out, 3, stride}, {out, out, 3, 1}};
  const int64_t narrow = out / kBottleneckReduction;
  const bool first = config.downsample_in_bottleneck;
  return {{in, narrow, 1, first ? stride : 1}, {narrow, narrow, 3, first ? 1 : stride}, {narrow, out, 1, 1}};
}

class ResidualLayer : public torch::nn::Module {
 public:
  ResidualLayer(const ResNetConfig& config, int64_t in, int64_t out, int64_t stride) {
    const auto layer = register_module("layer", std::make_shared<Group>());
    for (const ConvSpec& spec : residual_branch(config, in, out, stride)) {
      branch_.push_back(layer->add(std::to_string(branch_.size()),
                                   std::make_shared<ConvLayer>(spec.in, spec.out, spec.kernel, spec.stride)));
    }
    if (in != out || stride != 1)
      shortcut_ = register_module("shortcut", std::make_shared<ConvLayer>(in, out, 1, stride));
  }
  at::Tensor forward(const at::Tensor& x) {
    at::Tensor y = branch_.front()->forward(x);
    for (std::size_t i = 1; i < branch_.size(); ++i) y = branch_[i]->forward(at::relu(y));
    return at::relu(y + (shortcut_ ? shortcut_->forward(x) : x));
  }

 private:
  std::vector<std::shared_ptr<ConvLayer>> branch_;
  std::shared_ptr<ConvLayer> shortcut_;
};

class ResNet : public torch::nn::Module {
 public:
  explicit ResNet(const ResNetConfig& config) {
    const auto resnet = register_module("resnet", std::make_shared<Group>());
    embedder_ = resnet->add("embedder", std::make_shared<Group>())
                    ->add("embedder", std::make_shared<ConvLayer>(config.num_channels, config.embedding_size, 7, 2));
    const auto stages = resnet->add("encoder", std::make_shared<Group>())->add("stages", std::make_shared<Group>());
    int64_t in = config.embedding_size;
    for (std::size_t s = 0; s < config.depths.size(); ++s) {
      const auto layers =
          stages->add(std::to_string(s), std::make_shared<Group>())->add("layers", std::make_shared<Group>());
      const int64_t stage_stride = s > 0 || config.downsample_in_first_stage ? 2 : 1;
      for (int64_t i = 0; i < config.depths[s]; ++i) {
        layers_.push_back(layers->add(
            std::to_string(i),
            std::make_shared<ResidualLayer>(config, in, config.hidden_sizes[s], i == 0 ? stage_stride : 1)));
        in = config.hidden_sizes[s];
      }
    }
    const auto head = register_module("classifier", std::make_shared<Group>());
    head_ = diffusion::Linear(in, static_cast<int64_t>(config.labels.size()));
    head->add("1", head_.ptr());  // 0 is a flatten without weights
  }

  ClassifierOutput forward(const at::Tensor& pixels) {  // [N, C, H, W]
    at::Tensor x = at::max_pool2d(at::relu(embedder_->forward(pixels)), 3, 2, 1);
    for (const auto& layer : layers_) x = layer->forward(x);
    const at::Tensor features = x.mean({2, 3});
    return {head_->forward(features), features};
  }

 private:
  std::shared_ptr<ConvLayer> embedder_;
  std::vector<std::shared_ptr<ResidualLayer>> layers_;
  diffusion::Linear head_ = nullptr;
};

std::vector<int64_t> sizes(ObjectReader& in, const std::string& key, const std::vector<int64_t>& fallback) {
  if (!in.has(key)) return fallback;
  std::vector<int64_t> list;
  const Json& value = in.raw(key);
  const std::string where = in.where() + ": `" + key + "`";
  if (!value.is_array() || value.empty()) throw input_error(where, " must be a list of sizes, is ", value.dump());
  for (const Json& item : value) list.push_back(ObjectReader::convert<int64_t>(item, where));
  return list;
}

std::vector<std::string> class_names(ObjectReader& in, const std::vector<std::string>& fallback) {
  if (!in.has("id2label")) return fallback;
  const Json& value = in.raw("id2label");
  const std::string where = in.where() + ": `id2label`";
  if (!value.is_object() || value.empty())
    throw input_error(where, " must map class numbers to names, is ", value.dump());
  std::vector<std::string> names;
  for (std::size_t k = 0; k < value.size(); ++k) {
    const auto found = value.find(std::to_string(k));
    if (found == value.end()) throw input_error(where, ": class ", k, " of ", value.size(), " is missing");
    names.push_back(found->is_string() ? found->get<std::string>() : found->dump());
  }
  return names;
}

void check(const ResNetConfig& config, const std::string& where) {
  if (config.layer_type != "basic" && config.layer_type != "bottleneck") {
    throw input_error(where, ": `layer_type` ", config.layer_type, " is not supported; expected basic or bottleneck");
  }
  if (config.depths.size() != config.hidden_sizes.size()) {
    throw input_error(where, ": ", config.depths.size(), " depths but ", config.hidden_sizes.size(), " hidden_sizes");
  }
  if (config.num_channels != 1 && config.num_channels != 3) {
    throw input_error(where, ": `num_channels` is ", config.num_channels, ", expected 1 or 3");
  }
  std::vector<int64_t> all = config.hidden_sizes;
  all.insert(all.end(), config.depths.begin(), config.depths.end());
  all.push_back(config.embedding_size);
  const auto bad = std::find_if(all.begin(), all.end(), [](int64_t size) { return size < 1 || size > 1 << 20; });
  if (bad != all.end()) throw input_error(where, ": sizes and depths must be 1 to ", 1 << 20, ", one is ", *bad);
}

// How often training updated the statistics; evaluation does not use it.
TensorMap without_counters(TensorMap weights) {
  std::erase_if(weights, [](const auto& entry) { return entry.first.ends_with(".num_batches_tracked"); });
  return weights;
}

}  // namespace

struct Classifier::Parts {
  std::string where;
  ResNetConfig config;
  Preprocess preprocess;
  std::shared_ptr<ResNet> net;
  c10::Device device;
};

ResNetConfig resnet_config(const Json& config, const std::string& where) {
  ObjectReader in(config, where);
  const auto type = in.get<std::string>("model_type", "");
  if (type != "resnet") {
    throw input_error(where, ": expected model_type resnet (a ResNetForImageClassification), got `", type, "`");
  }
  const auto act = in.get<std::string>("hidden_act", "relu");
  if (act != "relu") throw input_error(where, ": `hidden_act` ", act, " is not supported; expected relu");
  ResNetConfig out;
  out.num_channels = in.get("num_channels", out.num_channels);
  out.embedding_size = in.get("embedding_size", out.embedding_size);
  out.hidden_sizes = sizes(in, "hidden_sizes", out.hidden_sizes);
  out.depths = sizes(in, "depths", out.depths);
  out.layer_type = in.get("layer_type", out.layer_type);
  out.downsample_in_first_stage = in.get("downsample_in_first_stage", out.downsample_in_first_stage);
  out.downsample_in_bottleneck = in.get("downsample_in_bottleneck", out.downsample_in_bottleneck);
  out.labels = class_names(in, out.labels);
  check(out, where);
  return out;
}

Classifier Classifier::load(const fs::path& folder, c10::Device device) {
  const fs::path config_path = folder / "config.json";
  const ResNetConfig config = resnet_config(read_json(config_path), config_path.string());
  const auto net = std::make_shared<ResNet>(config);
  diffusion::load_module(*net, without_counters(runtime::read_weight_files(folder, "model")), folder.string());
  net->to(device);
  return Classifier(
      std::make_shared<const Parts>(Parts{folder.string(), config, read_preprocess(folder), net, device}));
}

ClassifierOutput Classifier::run(const std::vector<at::Tensor>& pictures) const {
  const c10::InferenceMode guard;
  if (pictures.empty()) throw input_error(parts_->where, ": no pictures to classify");
  const at::Tensor pixels = prepare_batch(pictures, parts_->preprocess, parts_->config.num_channels);
  const ClassifierOutput out = parts_->net->forward(pixels.to(parts_->device));
  return {out.logits.to(at::kCPU), out.features.to(at::kCPU)};
}

const ResNetConfig& Classifier::config() const { return parts_->config; }
const Preprocess& Classifier::preprocess() const { return parts_->preprocess; }

int64_t Classifier::class_of(const std::string& name_or_number, const std::string& where) const {
  const std::vector<std::string>& labels = parts_->config.labels;
  const auto named = std::find(labels.begin(), labels.end(), name_or_number);
  if (named != labels.end()) return named - labels.begin();
  const bool number = !name_or_number.empty() && name_or_number.size() < 10 &&
                      name_or_number.find_first_not_of("0123456789") == std::string::npos;
  if (number && std::stoll(name_or_number) < static_cast<int64_t>(labels.size())) return std::stoll(name_or_number);
  throw input_error(where, ": label `", name_or_number, "` is neither a class name nor a number below ", labels.size(),
                    did_you_mean(name_or_number, labels));
}

}  // namespace laptopdiff::metrics
