#include "metrics/classifier.h"

#include <torch/types.h>

#include "tests/metrics/tiny_models.h"
#include "tests/support/thrown.h"

#include <doctest/doctest.h>

namespace laptopdiff::metrics {
namespace {

using runtime::ExitCode;

class ClassifierFolder {
 public:
  ClassifierFolder() { test::put_classifier(path()); }
  std::filesystem::path path() const { return folder_ / "classifier"; }
  Classifier load() const { return Classifier::load(path(), at::kCPU); }
  void put_weights(const runtime::TensorMap& weights) const {
    runtime::write_tensors(path() / "model.safetensors", weights);
  }

 private:
  test::TemporaryFolder folder_;
};

test::Thrown config_failure(const char* key, const runtime::Json& value) {
  runtime::Json config = test::classifier_config();
  config[key] = value;
  return test::thrown_by([&] { resnet_config(config, "config.json"); });
}

TEST_CASE("a classifier gives logits of its pooled features") {
  const Classifier model = ClassifierFolder().load();
  const ClassifierOutput out = model.run(test::noise_pictures(5, 8, 3).unbind(0));
  REQUIRE(out.features.sizes() == at::IntArrayRef{5, 2});
  const auto weights = test::classifier_weights();
  const at::Tensor logits =
      at::linear(out.features, weights.at("classifier.1.weight"), weights.at("classifier.1.bias"));
  CHECK(at::allclose(out.logits, logits, 1e-5, 1e-6));
  CHECK(out.features.min().item<float>() >= 0);
  CHECK(out.features.max().item<float>() > 0);
}

TEST_CASE("a classifier uses stored statistics, so a picture's logits do not depend on its batch") {
  const Classifier model = ClassifierFolder().load();
  const std::vector<at::Tensor> pictures = test::noise_pictures(4, 8, 3).unbind(0);
  CHECK(at::allclose(model.run(pictures).logits[2], model.run({pictures[2]}).logits[0], 1e-5, 1e-6));
}

TEST_CASE("counters of training are no weights") {
  const ClassifierFolder folder;
  auto weights = test::classifier_weights();
  weights["resnet.embedder.embedder.normalization.num_batches_tracked"] = torch::tensor(7);
  folder.put_weights(weights);
  CHECK_NOTHROW(folder.load());
}

TEST_CASE("a class is found by name, then by number") {
  const Classifier model = ClassifierFolder().load();
  CHECK(model.class_of("shirt", "labels.txt line 1") == 1);
  CHECK(model.class_of("2", "labels.txt line 1") == 2);
  const auto thrown = test::thrown_by([&] { model.class_of("shirts", "labels.txt line 4"); });
  CHECK(thrown.code == ExitCode::bad_input);
  CHECK(thrown.says("labels.txt line 4: label `shirts` is neither a class name nor a number below 3"));
  CHECK(thrown.says("shirt"));
  for (const char* bad : {"3", "-1", "", "1.0", "99999999999999999999"}) {
    CAPTURE(bad);
    CHECK(test::thrown_by([&] { model.class_of(bad, "labels.txt"); }).code == ExitCode::bad_input);
  }
}

TEST_CASE("weights that do not fit a classifier's config are listed") {
  const ClassifierFolder folder;
  auto weights = test::classifier_weights();
  weights.erase("classifier.1.bias");
  weights["fc.bias"] = at::zeros({3});
  folder.put_weights(weights);
  const auto thrown = test::thrown_by([&] { folder.load(); });
  CHECK(thrown.code == ExitCode::bad_input);
  CHECK(thrown.says("missing (1): classifier.1.bias"));
  CHECK(thrown.says("unexpected (1): fc.bias"));
}

TEST_CASE("a classifier's config that cannot be is refused, naming the field") {
  CHECK(config_failure("model_type", "vit").says("config.json: expected model_type resnet"));
  CHECK(config_failure("hidden_act", "gelu").says("`hidden_act` gelu is not supported; expected relu"));
  CHECK(config_failure("layer_type", "wide").says("`layer_type` wide is not supported; expected basic or bottleneck"));
  CHECK(config_failure("depths", {1, 1}).says("2 depths but 1 hidden_sizes"));
  CHECK(config_failure("depths", "deep").says("`depths` must be a list of sizes"));
  CHECK(config_failure("hidden_sizes", {0}).says("sizes and depths must be 1 to 1048576, one is 0"));
  CHECK(config_failure("num_channels", 2).says("`num_channels` is 2, expected 1 or 3"));
  CHECK(config_failure("id2label", runtime::Json::array()).says("`id2label` must map class numbers to names"));
  CHECK(config_failure("id2label", {{"0", "a"}, {"2", "b"}}).says("`id2label`: class 1 of 2 is missing"));
  CHECK(resnet_config({{"model_type", "resnet"}}, "config.json") == ResNetConfig{});
}

TEST_CASE("nothing cannot be classified") {
  const ClassifierFolder folder;
  CHECK(test::thrown_by([&] { folder.load().run({}); }).says("no pictures to classify"));
}

}  // namespace
}  // namespace laptopdiff::metrics
