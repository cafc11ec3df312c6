#include "unet/cpu_group_norm.h"

#include <torch/types.h>
#include <torch/utils.h>

#include <limits>

#include "tests/support/tolerance.h"

#include <doctest/doctest.h>

using namespace laptopdiff;
using unet::cpu_group_norm;
using unet::GroupNorm;

namespace {

// The same with one operation after another, in double.
at::Tensor reference(const at::Tensor& image, const GroupNorm& n) {
  const auto wide = [](const at::Tensor& x) { return x.to(at::kDouble); };
  const auto pixelwise = [&](const at::Tensor& x) { return wide(x).unsqueeze(2).unsqueeze(3); };
  at::Tensor x = wide(image);
  if (n.add.defined()) x = x + pixelwise(n.add);
  x = at::group_norm(x, n.groups, wide(n.gain), wide(n.bias), n.eps);
  if (n.scale.defined()) x = x * (1 + pixelwise(n.scale)) + pixelwise(n.shift);
  return n.silu ? at::silu(x) : x;
}

GroupNorm random_norm(std::int64_t batch, std::int64_t channels, std::int64_t groups, at::ScalarType dtype, int parts) {
  GroupNorm norm;
  norm.groups = groups;
  norm.gain = torch::randn({channels}).to(dtype);
  norm.bias = torch::randn({channels}).to(dtype);
  if ((parts & 1) != 0) norm.add = torch::randn({batch, channels}).to(dtype);
  if ((parts & 2) != 0) {
    const auto halves = torch::randn({batch, 2 * channels}).to(dtype).chunk(2, 1);  // strided, as the executor has them
    norm.scale = halves[0];
    norm.shift = halves[1];
  }
  norm.silu = (parts & 4) != 0;
  return norm;
}

}  // namespace

TEST_CASE("fused group norm is what its parts are one after another") {
  torch::manual_seed(0);
  const std::int64_t sizes[][5] = {// B, C, groups, H, W
                                   {1, 32, 8, 16, 16},
                                   {2, 12, 3, 9, 15},
                                   {3, 28, 7, 1, 1},
                                   {1, 320, 32, 12, 11},
                                   {2, 5, 1, 129, 1}};
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
    for (const auto& [b, c, g, h, w] : sizes) {
      for (int parts = 0; parts < 8; ++parts) {
        const GroupNorm norm = random_norm(b, c, g, dtype, parts);
        const at::Tensor image = (torch::randn({b, c, h, w}) + 3).to(dtype);  // planes of their own, not channels-last
        const at::Tensor own = cpu_group_norm(image, norm);
        CHECK(own.is_contiguous(at::MemoryFormat::ChannelsLast));
        CHECK(test::relative_difference(own, reference(image, norm)) <= test::rounding_of(dtype));
      }
    }
  }
}

TEST_CASE("group norm does not cancel where the mean is large beside the spread") {
  torch::manual_seed(1);
  const GroupNorm norm = random_norm(1, 8, 2, at::kFloat, 0);
  const at::Tensor image = torch::randn({1, 8, 40, 40}) + 1000;
  CHECK(test::relative_difference(cpu_group_norm(image, norm), reference(image, norm)) <= 1e-4);  // 1000's own rounding
}

TEST_CASE("a sample's group norm has the same bits alone, in a batch, and on one thread") {
  torch::manual_seed(2);
  const GroupNorm norm = random_norm(1, 16, 4, at::kBFloat16, 4);
  const at::Tensor images = torch::randn({3, 16, 20, 20}).to(at::kBFloat16);
  const at::Tensor together = cpu_group_norm(images, norm);
  const int threads = at::get_num_threads();
  at::set_num_threads(1);
  CHECK(at::equal(together, cpu_group_norm(images, norm)));
  at::set_num_threads(threads);
  for (std::int64_t b = 0; b < 3; ++b) CHECK(at::equal(together[b], cpu_group_norm(images.narrow(0, b, 1), norm)[0]));
}

TEST_CASE("NaN in a pixel spoils its group and no other") {
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
    GroupNorm norm;
    norm.groups = 2;
    norm.silu = true;
    at::Tensor image = torch::randn({1, 8, 5, 5}).to(dtype);
    image[0][1][2][2] = std::numeric_limits<double>::quiet_NaN();
    const at::Tensor bad = at::isnan(cpu_group_norm(image, norm));
    CHECK(bad.narrow(1, 0, 4).all().item<bool>());
    CHECK_FALSE(bad.narrow(1, 4, 4).any().item<bool>());
  }
}
