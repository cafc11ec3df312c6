#include "unet/cpu_winograd.h"

#include <torch/types.h>
#include <torch/utils.h>

#include "tests/support/tolerance.h"
#include "unet/packed_layers.h"

#include <doctest/doctest.h>

using namespace laptopdiff;

namespace {

struct Sizes {
  std::int64_t batch, in, out, height, width;
};

double root_mean_square(const at::Tensor& x) { return x.to(at::kDouble).square().mean().sqrt().item<double>(); }

at::Tensor exact(const at::Tensor& image, const at::Tensor& kernel, const at::Tensor& bias) {
  return at::conv2d(image.to(at::kDouble), kernel.to(at::kDouble), bias.to(at::kDouble), 1, 1);
}

}  // namespace

TEST_CASE("Winograd's convolution is the convolution, at every tile's edge") {
  const c10::InferenceMode inference;
  torch::manual_seed(0);
  // More tiles than the buffer holds, odd sides, one pixel, several blocks of channels.
  const Sizes cases[] = {{1, 16, 64, 16, 16}, {2, 48, 128, 7, 5},    {3, 32, 64, 1, 1},
                         {1, 16, 192, 17, 2}, {1, 2048, 64, 23, 24}, {1, 32, 64, 40, 41}};
  for (const Sizes& s : cases) {
    const at::Tensor image = torch::randn({s.batch, s.in, s.height, s.width}).to(at::kBFloat16);
    const at::Tensor kernel = torch::randn({s.out, s.in, 3, 3}).to(at::kBFloat16);
    if (!unet::has_winograd(kernel)) return;
    const at::Tensor bias = torch::randn({s.out}).to(at::kBFloat16) * 10;
    const at::Tensor residual = torch::randn({s.batch, s.out, s.height, s.width}).to(at::kBFloat16) * 10;
    const at::Tensor packed = unet::pack_winograd(kernel), reference = exact(image, kernel, bias);
    const at::Tensor own = unet::cpu_winograd(image, packed, bias, {});
    CHECK(own.is_contiguous(at::MemoryFormat::ChannelsLast));
    CHECK(test::relative_difference(own, reference) <= 1.0 / 128);
    CHECK(test::relative_difference(unet::cpu_winograd(image, packed, {}, {}), exact(image, kernel, bias * 0)) <=
          1.0 / 128);
    CHECK(test::relative_difference(unet::cpu_winograd(image, packed, bias, residual), reference + residual) <=
          1.0 / 128);
    const int threads = at::get_num_threads();
    at::set_num_threads(1);
    CHECK(at::equal(own, unet::cpu_winograd(image, packed, bias, {})));
    at::set_num_threads(threads);
    for (std::int64_t b = 0; b < s.batch; ++b)
      CHECK(at::equal(own.narrow(0, b, 1), unet::cpu_winograd(image.narrow(0, b, 1), packed, bias, {})));
  }
}

TEST_CASE("Winograd's convolution errs 2.7 times as much as one rounding of the output at most") {
  const c10::InferenceMode inference;
  torch::manual_seed(1);
  const at::Tensor image = torch::randn({1, 256, 16, 16}).to(at::kBFloat16);
  const at::Tensor kernel = torch::randn({64, 256, 3, 3}).to(at::kBFloat16), bias = torch::zeros({64}, at::kBFloat16);
  if (!unet::has_winograd(kernel)) return;
  const at::Tensor reference = exact(image, kernel, bias);
  const double own = root_mean_square(unet::cpu_winograd(image, unet::pack_winograd(kernel), bias, {}) - reference);
  CHECK(own <= 2.7 * root_mean_square(reference.to(at::kBFloat16) - reference));
}

TEST_CASE("which convolutions go Winograd's way is decided when they are packed, and does not show") {
  const c10::InferenceMode inference;
  torch::manual_seed(2);
  struct Case {
    std::int64_t in, out, side;
    bool winograd;
  };
  for (const Case& c : {Case{128, 64, 32, true}, {128, 64, 16, false}, {128, 72, 32, false}, {129, 64, 32, false}}) {
    const at::Tensor kernel = torch::randn({c.out, c.in, 3, 3}).to(at::kBFloat16);
    if (!unet::can_pack(at::kBFloat16) || !unet::has_winograd(kernel.new_empty({64, 128, 3, 3}))) return;
    const at::Tensor image = torch::randn({2, c.in, 9, 12}).to(at::kBFloat16);
    const at::Tensor bias = torch::randn({c.out}).to(at::kBFloat16);
    const at::Tensor packed = unet::pack_conv(kernel, {1, 1, c.side, c.side});
    CHECK(packed.is_mkldnn() != c.winograd);
    const at::Tensor own = unet::packed_conv(image, packed, bias, {1, 1});
    CHECK(test::relative_difference(own, exact(image, kernel, bias)) <= 1.0 / 128);
  }
}
