#include "metrics/preprocess.h"

#include <torch/types.h>

#include "tests/support/temporary_folder.h"
#include "tests/support/thrown.h"

#include <doctest/doctest.h>

namespace laptopdiff::metrics {
namespace {

using runtime::Json;

Json clip_config() {
  return {{"image_processor_type", "CLIPImageProcessor"},
          {"size", {{"shortest_edge", 4}}},
          {"crop_size", {{"height", 4}, {"width", 4}}},
          {"image_mean", {0.5, 0.25, 0.125}},
          {"image_std", {0.5, 1.0, 2.0}},
          {"resample", 3}};
}

Preprocess read(const Json& config) { return preprocess_from_json(config, "p.json"); }
test::Thrown failure(const Json& config) {
  return test::thrown_by([&] { read(config); });
}

TEST_CASE("the steps of a CLIP processor") {
  const Preprocess steps = read(clip_config());
  CHECK(steps.shortest_edge == 4);
  CHECK_FALSE(steps.size);
  CHECK(steps.crop == PictureSize{4, 4});
  CHECK(steps.resample == Resample::bicubic);
  CHECK(*steps.rescale_factor == doctest::Approx(1 / 255.0));
  CHECK(steps.std == std::vector<double>{0.5, 1, 2});
}

TEST_CASE("old files give sizes as numbers and leave defaults out") {
  const Json old = {{"feature_extractor_type", "CLIPFeatureExtractor"},
                    {"size", 4},
                    {"crop_size", 4},
                    {"image_mean", {0.5, 0.25, 0.125}},
                    {"image_std", {0.5, 1.0, 2.0}}};
  CHECK(read(old) == read(clip_config()));
}

TEST_CASE("a ConvNext processor crops small pictures by crop_pct, and warps from 384 on") {
  Json config = {{"size", {{"shortest_edge", 224}}}, {"crop_pct", 0.875}, {"image_mean", 0.5}, {"image_std", 0.5}};
  CHECK(read(config).shortest_edge == 256);
  CHECK(read(config).crop == PictureSize{224, 224});
  config["size"] = {{"shortest_edge", 384}};
  CHECK(read(config).size == PictureSize{384, 384});
  CHECK_FALSE(read(config).crop);
}

TEST_CASE("pixels are scaled, shifted and divided channel by channel") {
  const at::Tensor flat = at::full({4, 6, 3}, 51, at::kByte);  // 0.2
  const at::Tensor x = prepare(flat, read(clip_config()), 3);
  REQUIRE(x.sizes() == at::IntArrayRef{3, 4, 4});
  CHECK(x[0][0][0].item<float>() == doctest::Approx((0.2 - 0.5) / 0.5));
  CHECK(x[1][3][2].item<float>() == doctest::Approx(0.2 - 0.25));
  CHECK(x[2][1][1].item<float>() == doctest::Approx((0.2 - 0.125) / 2));
}

TEST_CASE("grey becomes three equal channels, and colour becomes luma") {
  Preprocess bare;
  bare.rescale_factor = 1;
  const at::Tensor grey = at::randint(256, {3, 5, 1}, at::kByte);
  CHECK(at::equal(prepare(grey, bare, 3), prepare(grey.expand({3, 5, 3}), bare, 3)));
  CHECK(at::equal(prepare(grey.expand({3, 5, 3}).contiguous(), bare, 1), prepare(grey, bare, 1)));
  const at::Tensor red = torch::tensor({255, 0, 0}, at::kByte).view({1, 1, 3});
  CHECK(prepare(red, bare, 1).item<float>() == 76);  // 0.299 * 255
}

TEST_CASE("the config may lie in either file of a model folder") {
  const test::TemporaryFolder folder;
  SUBCASE("preprocessor_config.json") { test::put_bytes(folder / "preprocessor_config.json", clip_config().dump()); }
  SUBCASE("processor_config.json") {
    test::put_bytes(folder / "processor_config.json", Json{{"image_processor", clip_config()}}.dump());
  }
  CHECK(read_preprocess(folder.path()) == read(clip_config()));
}

TEST_CASE("a folder without a config says what it is for") {
  const test::TemporaryFolder folder;
  const auto thrown = test::thrown_by([&] { read_preprocess(folder.path()); });
  CHECK(thrown.code == runtime::ExitCode::bad_input);
  CHECK(thrown.says("preprocessor_config.json is missing; it says how pictures are resized"));
}

TEST_CASE("a broken config names its field") {
  Json config = clip_config();
  SUBCASE("no size") {
    config.erase("size");
    CHECK(failure(config).says("p.json: `size` is missing, but do_resize is true"));
  }
  SUBCASE("a size of neither form") {
    config["size"] = {{"longest_edge", 4}};
    CHECK(failure(config).says("`size`: `height` is missing"));
  }
  SUBCASE("both forms at once") {
    config["size"] = {{"shortest_edge", 4}, {"longest_edge", 9}};
    CHECK(failure(config).says("unknown key `longest_edge`"));
  }
  SUBCASE("a negative side") {
    config["crop_size"] = {{"height", 4}, {"width", -4}};
    CHECK(failure(config).says("`crop_size`: sides must be positive, is 4x-4"));
  }
  SUBCASE("a short side of nothing") {
    config["size"] = {{"shortest_edge", 0}};
    CHECK(failure(config).says("`size`: sides must be positive, is 0"));
  }
  SUBCASE("no crop size") {
    config.erase("crop_size");
    CHECK(failure(config).says("`crop_size` is missing, but do_center_crop is true"));
  }
  SUBCASE("no mean") {
    config.erase("image_mean");
    CHECK(failure(config).says("`image_mean` is missing, but do_normalize is true"));
  }
  SUBCASE("a mean that is no number") {
    config["image_mean"] = "half";
    CHECK(failure(config).says("`image_mean` must be a number or a list"));
  }
  SUBCASE("a deviation of zero") {
    config["image_std"] = {0.5, 0.0, 0.5};
    CHECK(failure(config).says("`image_std` must be positive, is 0"));
  }
  SUBCASE("no filter, where the class has no default") {
    config.erase("resample");
    config["image_processor_type"] = "ViTImageProcessor";
    CHECK(failure(config).says("`resample` is missing"));
  }
  SUBCASE("crop_pct out of range") {
    config["crop_pct"] = 1.5;
    CHECK(failure(config).says("`crop_pct` must lie in (0, 1], is 1.5"));
  }
  SUBCASE("crop_pct without a short side") {
    config["crop_pct"] = 0.9;
    config["size"] = {{"height", 4}, {"width", 4}};
    CHECK(failure(config).says("`size` needs `shortest_edge` beside `crop_pct`"));
  }
  SUBCASE("a step that is not known") {
    config["do_pad"] = true;
    CHECK(failure(config).says("p.json: `do_pad` = true is not supported"));
  }
  SUBCASE("such a step, switched off") {
    config["do_pad"] = false;
    CHECK(failure(config).code == runtime::ExitCode::ok);
  }
}

TEST_CASE("pictures that do not fit the steps are refused") {
  const Preprocess steps = read(clip_config());
  SUBCASE("two channels") {
    const auto thrown = test::thrown_by([&] { prepare(at::zeros({4, 4, 2}, at::kByte), steps, 3); });
    CHECK(thrown.says("a picture of 2 channels cannot be given to a model of 3"));
  }
  SUBCASE("three means for one channel") {
    const auto thrown = test::thrown_by([&] { prepare(at::zeros({4, 4, 1}, at::kByte), steps, 1); });
    CHECK(thrown.says("image_mean has 3 values, the model has 1 channels"));
  }
  SUBCASE("sizes that no step makes equal") {
    const std::vector<at::Tensor> pictures{at::zeros({4, 4, 3}, at::kByte), at::zeros({4, 5, 3}, at::kByte)};
    CHECK(prepare_batch(pictures, steps, 3).sizes() == at::IntArrayRef{2, 3, 4, 4});
    const auto thrown = test::thrown_by([&] { prepare_batch(pictures, Preprocess{}, 3); });
    CHECK(thrown.says("pictures are 4x4 and 4x5 after preprocessing"));
  }
}

}  // namespace
}  // namespace laptopdiff::metrics
