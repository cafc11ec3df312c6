#include "metrics/clip_model.h"

#include <torch/types.h>

#include <cmath>
#include <limits>

#include "tests/metrics/tiny_models.h"
#include "tests/support/thrown.h"

#include <doctest/doctest.h>

namespace laptopdiff::metrics {
namespace {

using runtime::ExitCode;

class ClipFolder {
 public:
  ClipFolder() { test::put_clip(path()); }
  std::filesystem::path path() const { return folder_ / "clip"; }
  ClipModel load() const { return ClipModel::load(path(), at::kCPU); }
  test::Thrown failure() const {
    return test::thrown_by([&] { load(); });
  }
  void put_config(const runtime::Json& config) const { test::write_json_file(path() / "config.json", config); }
  void put_weights(const runtime::TensorMap& weights) const {
    runtime::write_tensors(path() / "model.safetensors", weights);
  }

 private:
  test::TemporaryFolder folder_;
};

TEST_CASE("CLIP embeddings have length one, whatever the size and colour of the picture") {
  const ClipModel model = ClipFolder().load();
  const at::Tensor colour = test::noise_pictures(1, 9, 3)[0], grey = test::noise_pictures(1, 6, 1)[0];
  const at::Tensor embeds = model.image_embeds(std::vector<at::Tensor>{colour, grey});
  REQUIRE(embeds.sizes() == at::IntArrayRef{2, 3});
  CHECK(at::allclose(embeds.norm(2, 1), at::ones({2})));
  CHECK(at::equal(model.image_embeds(grey.expand({6, 6, 3}).unsqueeze(0)), model.image_embeds(grey.unsqueeze(0))));
  CHECK(at::allclose(model.text_embeds({"a b", "", "ab ab ab ab ab ab ab"}).norm(2, 1), at::ones({3})));
}

TEST_CASE("CLIP gives a picture or a text the same embedding in any company") {
  const ClipModel model = ClipFolder().load();
  const at::Tensor pictures = test::noise_pictures(70, 4, 3);  // more than one part
  const at::Tensor embeds = model.image_embeds(pictures);
  CHECK(at::allclose(embeds[69], model.image_embeds(pictures.narrow(0, 69, 1))[0], 1e-5, 1e-6));
  const std::vector<std::string> texts(70, "ab a");
  CHECK(at::allclose(model.text_embeds(texts)[69], model.text_embeds({"ab a"})[0], 1e-5, 1e-6));
}

TEST_CASE("a CLIP model keeps its logit scale as a logarithm") {
  const ClipFolder folder;
  auto weights = test::clip_weights();
  weights["logit_scale"] = torch::tensor(2.5f);
  folder.put_weights(weights);
  CHECK(folder.load().logit_scale() == 2.5);
}

TEST_CASE("tables and sections of old CLIP files are read") {
  const ClipFolder folder;
  const at::Tensor pictures = test::noise_pictures(2, 4, 3);
  const at::Tensor before = folder.load().image_embeds(pictures);
  auto weights = test::clip_weights();
  weights["vision_model.embeddings.position_ids"] = at::arange(5).unsqueeze(0);
  weights["text_model.embeddings.position_ids"] = at::arange(8).unsqueeze(0);
  folder.put_weights(weights);
  runtime::Json config = test::clip_config();
  for (const std::string section : {"vision_config", "text_config"}) {
    config[section + "_dict"] = config[section];
    config[section] = {{"hidden_size", 99}};
  }
  config["vision_config_dict"]["image_size"] = {4, 4};
  folder.put_config(config);
  CHECK(at::equal(folder.load().image_embeds(pictures), before));
}

TEST_CASE("weights that do not fit a CLIP config are listed") {
  const ClipFolder folder;
  auto weights = test::clip_weights();
  SUBCASE("of the vision tower") {
    weights.erase("vision_model.pre_layrnorm.bias");
    weights.erase("logit_scale");
    weights["head.weight"] = at::zeros({2});
    weights["visual_projection.weight"] = at::zeros({5, 4});
    folder.put_weights(weights);
    const auto thrown = folder.failure();
    CHECK(thrown.code == ExitCode::bad_input);
    CHECK(thrown.says("missing (2): logit_scale, vision_model.pre_layrnorm.bias"));
    CHECK(thrown.says("unexpected (1): head.weight"));
    CHECK(thrown.says("visual_projection.weight is [5, 4], the config says [3, 4]"));
  }
  SUBCASE("of the text tower") {
    weights.erase("text_projection.weight");
    weights["text_model.extra"] = at::zeros({2});
    folder.put_weights(weights);
    CHECK(folder.failure().says("text_projection.weight"));
    CHECK(folder.failure().says("extra"));
  }
}

TEST_CASE("a CLIP folder with a part missing names it") {
  const ClipFolder folder;
  for (const char* name : {"config.json", "model.safetensors", "preprocessor_config.json", "vocab.json"}) {
    CAPTURE(name);
    const std::string bytes = test::get_bytes(folder.path() / name);
    std::filesystem::remove(folder.path() / name);
    CHECK(folder.failure().code == ExitCode::bad_input);
    CHECK(folder.failure().says(name));
    test::put_bytes(folder.path() / name, bytes);
  }
}

TEST_CASE("a CLIP config that cannot be is refused, naming the field") {
  const auto failure = [](const char* key, const runtime::Json& value) {
    runtime::Json config = test::clip_config();
    config["vision_config"][key] = value;
    return test::thrown_by([&] { clip_vision_config(config, "config.json"); });
  };
  CHECK(failure("hidden_size", 0).says("config.json: `vision_config`: `hidden_size` is 0"));
  CHECK(failure("num_attention_heads", 3).says("hidden_size 4 is not a multiple of num_attention_heads 3"));
  CHECK(failure("patch_size", 5).says("patch_size 5 is larger than image_size 4"));
  CHECK(failure("num_channels", 4).says("`num_channels` is 4, expected 1 or 3"));
  CHECK(failure("hidden_act", "relu").says("`hidden_act` relu is not supported; expected quick_gelu or gelu"));
  CHECK(failure("image_size", {4, 5}).says("`image_size` must be square, is [4,5]"));
  const auto other = test::thrown_by([] { clip_vision_config({{"model_type", "siglip"}}, "config.json"); });
  CHECK(other.code == ExitCode::bad_input);
  CHECK(other.says("expected model_type clip (a CLIPModel), got `siglip`"));
}

TEST_CASE("CLIP says what it cannot embed") {
  const ClipFolder folder;
  SUBCASE("nothing") {
    CHECK(test::thrown_by([&] { folder.load().image_embeds(std::vector<at::Tensor>{}); }).says("no pictures to embed"));
    CHECK(test::thrown_by([&] { folder.load().text_embeds({}); }).says("no texts to embed"));
  }
  SUBCASE("pictures prepared for another tower") {
    test::write_json_file(folder.path() / "preprocessor_config.json", test::square_preprocess(6));
    const auto thrown = test::thrown_by([&] { folder.load().image_embeds(test::noise_pictures(1, 4, 3)); });
    CHECK(thrown.says("makes pictures 6x6, the vision tower takes 4x4"));
  }
  SUBCASE("with weights that are no numbers") {
    auto weights = test::clip_weights();
    weights["visual_projection.weight"] = at::full({3, 4}, std::numeric_limits<float>::quiet_NaN());
    folder.put_weights(weights);
    const auto thrown = test::thrown_by([&] { folder.load(); });
    CHECK(thrown.code == ExitCode::non_finite);
    CHECK(thrown.says("visual_projection.weight (12 NaN, 0 Inf)"));
  }
  SUBCASE("with weights whose product is none") {
    auto weights = test::clip_weights();
    weights["vision_model.post_layernorm.weight"] = at::full({4}, 1e10);
    weights["visual_projection.weight"] = at::full({3, 4}, 1e30);
    folder.put_weights(weights);
    const auto thrown = test::thrown_by([&] { folder.load().image_embeds(test::noise_pictures(2, 4, 3)); });
    CHECK(thrown.code == ExitCode::non_finite);
    CHECK(thrown.says("pictures: 2 of 2 embeddings are NaN or Inf, the first of them 0"));
  }
}

}  // namespace
}  // namespace laptopdiff::metrics
