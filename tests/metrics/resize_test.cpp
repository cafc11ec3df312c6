#include "metrics/resize.h"

#include <torch/types.h>

#include "tests/support/thrown.h"

#include <doctest/doctest.h>

namespace laptopdiff::metrics {
namespace {

at::Tensor picture(const std::vector<std::int64_t>& values, std::int64_t height, std::int64_t width) {
  return torch::tensor(values, at::kLong).to(at::kByte).view({height, width, 1});
}

TEST_CASE("halving with the bilinear filter weighs 1, 3, 3, 1 eighths") {
  // Support 1 widened by 2: the pixel between 1 and 2 sees 0..3 at distances 1.5, 0.5, 0.5, 1.5 over 2; at the border
  // the window is cut and its weights are scaled to sum to 1.
  const at::Tensor row = picture({0, 80, 160, 240, 0, 0, 0, 8}, 1, 8);
  const at::Tensor half = resize(row, {1, 4}, Resample::bilinear);
  CHECK(half[0][0][0].item<int>() == 57);   // (3*0 + 3*80 + 160) / 7 = 57.1
  CHECK(half[0][1][0].item<int>() == 160);  // (80 + 3*160 + 3*240 + 0) / 8
  CHECK(half[0][2][0].item<int>() == 30);   // (240 + 0 + 0 + 0) / 8
  CHECK(half[0][3][0].item<int>() == 3);    // (0 + 0 + 3*8) / 7 = 3.4
}

TEST_CASE("doubling with the bicubic filter overshoots an edge, and stays within 8 bits") {
  const at::Tensor wide = resize(picture({100, 100, 200, 200}, 1, 4), {1, 8}, Resample::bicubic);
  // Weights at distances 0.25, 0.75, 1.25, 1.75 with a = -0.5: 0.8671875, 0.2265625, -0.0703125, -0.0234375.
  CHECK(wide[0][2][0].item<int>() == 93);   // 100 - 7.03125 / 1.0234375, since the border cuts the last weight off
  CHECK(wide[0][3][0].item<int>() == 120);  // 100 + 22.65625 - 2.34375
  CHECK(wide[0][4][0].item<int>() == 180);
  CHECK(wide[0][5][0].item<int>() == 207);
  const at::Tensor clipped = resize(picture({0, 0, 255, 255}, 1, 4), {1, 8}, Resample::bicubic);
  CHECK(clipped[0][2][0].item<int>() == 0);
  CHECK(clipped[0][5][0].item<int>() == 255);
}

TEST_CASE("a flat picture stays flat, and a picture of the right size stays as it is") {
  for (const Resample resample : {Resample::bilinear, Resample::bicubic}) {
    const at::Tensor flat = at::full({37, 53, 3}, 173, at::kByte);
    CHECK(at::equal(resize(flat, {11, 90}, resample), at::full({11, 90, 3}, 173, at::kByte)));
    const at::Tensor noise = at::randint(256, {7, 9, 3}, at::kByte);
    CHECK(at::equal(resize(noise, {7, 9}, resample), noise));
  }
}

TEST_CASE("channels are resized apart, and memory order does not matter") {
  const at::Tensor channels_first = at::randint(256, {3, 21, 34}, at::kByte);
  const at::Tensor all = resize(channels_first.permute({1, 2, 0}), {13, 40}, Resample::bicubic);
  for (std::int64_t c = 0; c < 3; ++c) {
    CHECK(
        at::equal(all.select(2, c), resize(channels_first[c].unsqueeze(2), {13, 40}, Resample::bicubic).select(2, 0)));
  }
}

TEST_CASE("the two pass orders differ only where the height loses over twice as many pixels as the width") {
  const at::Tensor noise = at::randint(256, {60, 40, 3}, at::kByte);
  const auto both = [&](PictureSize size) {
    return at::equal(resize(noise, size, Resample::bicubic, PassOrder::pillow_12),
                     resize(noise, size, Resample::bicubic, PassOrder::pillow_13));
  };
  CHECK(both({30, 25}));        // 30 rows against 15 columns: not over twice
  CHECK_FALSE(both({29, 25}));  // 31 against 15
  CHECK_FALSE(both({30, 80}));  // rows lost, none of the columns
  CHECK(both({30, 40}));        // one pass
  CHECK(both({120, 80}));
}

TEST_CASE("the short side gets the edge, the long side is cut to whole pixels") {
  CHECK(shortest_edge_size({480, 640}, 224) == PictureSize{224, 298});  // 298.67
  CHECK(shortest_edge_size({640, 480}, 224) == PictureSize{298, 224});
  CHECK(shortest_edge_size({333, 333}, 224) == PictureSize{224, 224});
  CHECK(shortest_edge_size({1, 7}, 3) == PictureSize{3, 21});
}

TEST_CASE("a centre crop follows its rule at odd margins") {
  const at::Tensor row = at::arange(20, at::kByte).view({1, 20, 1});
  const auto first = [&](std::int64_t side, CropRule rule) {
    return center_crop(row, {1, side}, rule)[0][0][0].item<int>();
  };
  CHECK(first(16, CropRule::transformers) == 2);
  CHECK(first(16, CropRule::torchvision) == 2);
  CHECK(first(17, CropRule::transformers) == 1);  // margin 3: floor(1.5)
  CHECK(first(17, CropRule::torchvision) == 2);   // round(1.5) to even
  CHECK(first(15, CropRule::transformers) == 2);  // margin 5: floor(2.5)
  CHECK(first(15, CropRule::torchvision) == 2);   // round(2.5) to even
}

TEST_CASE("a crop larger than the picture is filled up with zeros") {
  const at::Tensor two = picture({5, 6}, 1, 2);
  const at::Tensor wide = center_crop(two, {1, 5}, CropRule::transformers);
  CHECK(at::equal(wide, picture({0, 0, 5, 6, 0}, 1, 5)));  // margin -3: floor(-1.5)
  CHECK(at::equal(center_crop(two, {1, 5}, CropRule::torchvision), picture({0, 5, 6, 0, 0}, 1, 5)));
  const at::Tensor tall = center_crop(at::arange(6, at::kByte).view({2, 3, 1}), {4, 1}, CropRule::transformers);
  CHECK(at::equal(tall, picture({0, 1, 4, 0}, 4, 1)));
}

TEST_CASE("resizing says what it cannot do") {
  const at::Tensor grey = at::zeros({4, 5, 1}, at::kByte);
  SUBCASE("an empty size") {
    const auto thrown = test::thrown_by([&] { resize(grey, {0, 5}, Resample::bicubic); });
    CHECK(thrown.code == runtime::ExitCode::bad_input);
    CHECK(thrown.says("a 4x5 picture cannot become 0x5"));
  }
  SUBCASE("an empty picture") {
    CHECK(test::thrown_by([&] {
            resize(at::zeros({0, 5, 3}, at::kByte), {2, 2}, Resample::bicubic);
          }).says("is empty"));
  }
  SUBCASE("floats") {
    const auto thrown = test::thrown_by([&] { resize(grey.to(at::kFloat), {2, 2}, Resample::bicubic); });
    CHECK(thrown.says("expected a picture U8 [H, W, C], got Float of 3 dimensions"));
  }
  SUBCASE("a filter without a name here") {
    const auto thrown = test::thrown_by([] { resample_from_pillow(1, "preprocessor_config.json"); });
    CHECK(thrown.says("preprocessor_config.json: resample 1 is not supported; expected 2 (bilinear) or 3 (bicubic)"));
  }
}

}  // namespace
}  // namespace laptopdiff::metrics
