#include "unet/packed_upsample.h"

#include <torch/types.h>
#include <torch/utils.h>

#include "tests/support/tolerance.h"
#include "unet/packed_layers.h"

#include <doctest/doctest.h>

using namespace laptopdiff;

TEST_CASE("an up-sampler's folded kernels give what its kernel gives on the enlarged image") {
  const c10::InferenceMode inference;
  torch::manual_seed(0);
  struct Sizes {
    std::int64_t batch, in, out, height, width;
  };
  const Sizes cases[] = {{1, 16, 16, 4, 4}, {3, 8, 24, 5, 3}, {2, 7, 5, 1, 6}, {1, 64, 32, 1, 1}};
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
    if (!unet::can_pack(dtype)) continue;
    for (const Sizes& s : cases) {
      const at::Tensor image = torch::randn({s.batch, s.in, s.height, s.width}).to(dtype);
      const at::Tensor kernel = torch::randn({s.out, s.in, 3, 3}).to(dtype), bias = torch::randn({s.out}).to(dtype);
      const at::Tensor large = at::upsample_nearest2d(image.to(at::kDouble), {2 * s.height, 2 * s.width});
      const unet::UpsampleKernels folded = unet::pack_upsample(kernel, s.height, s.width);
      const at::Tensor plain = at::conv2d(large, kernel.to(at::kDouble), {}, 1, 1);
      CHECK(test::relative_difference(unet::packed_upsample(image, folded, {}), plain) <= test::rounding_of(dtype));
      const at::Tensor own = unet::packed_upsample(image.contiguous(at::MemoryFormat::ChannelsLast), folded, bias);
      const at::Tensor exact = plain + bias.to(at::kDouble).view({1, -1, 1, 1});
      CHECK(own.is_contiguous(at::MemoryFormat::ChannelsLast));
      CHECK((own.scalar_type() == dtype));
      CHECK(test::relative_difference(own, exact) <= test::rounding_of(dtype));
      const int threads = at::get_num_threads();
      at::set_num_threads(1);
      CHECK(test::relative_difference(unet::packed_upsample(image, folded, bias), exact) <= test::rounding_of(dtype));
      at::set_num_threads(threads);
    }
  }
}
