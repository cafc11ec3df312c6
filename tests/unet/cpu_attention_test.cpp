#include "unet/cpu_attention.h"

#include <torch/types.h>
#include <torch/utils.h>

#include <limits>

#include "tests/support/tolerance.h"

#include <doctest/doctest.h>

using namespace laptopdiff;
using unet::cpu_attention;

namespace {

struct Sizes {
  std::int64_t batch, queries, keys, heads, width;
};

// Softmax and both products spelled out, in double.
at::Tensor reference(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, std::int64_t heads) {
  const auto split = [&](const at::Tensor& x) {
    return x.to(at::kDouble).view({x.size(0), x.size(1), heads, -1}).transpose(1, 2);
  };
  const double scale = 1 / std::sqrt(static_cast<double>(q.size(2) / heads));
  const at::Tensor weights = at::softmax(at::matmul(split(q), split(k).transpose(2, 3)) * scale, -1);
  return at::matmul(weights, split(v)).transpose(1, 2).reshape(q.sizes());
}

}  // namespace

TEST_CASE("CPU attention is softmax(QK)V at every block edge") {
  torch::manual_seed(0);
  const Sizes cases[] = {{1, 64, 512, 1, 40},  {2, 65, 513, 3, 16}, {1, 1, 1, 2, 8},     {1, 7, 77, 2, 6},
                         {3, 130, 1025, 1, 2}, {1, 63, 511, 2, 80}, {1, 16, 33, 1, 160}, {1, 5, 9, 2, 5}};
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
    for (const Sizes& s : cases) {
      if (!unet::has_cpu_attention(dtype, s.width)) continue;
      const at::Tensor q = torch::randn({s.batch, s.queries, s.heads * s.width}).to(dtype);
      const at::Tensor k = torch::randn({s.batch, s.keys, s.heads * s.width}).to(dtype);
      const at::Tensor v = torch::randn({s.batch, s.keys, s.heads * s.width}).to(dtype);
      const at::Tensor own = cpu_attention(q, k, v, s.heads);
      CHECK((own.scalar_type() == dtype));
      CHECK(test::relative_difference(own, reference(q, k, v, s.heads)) <= test::rounding_of(dtype));
    }
  }
}

TEST_CASE("CPU attention takes views of wider rows and leaves large scores finite") {
  torch::manual_seed(1);
  if (!unet::has_cpu_attention(at::kFloat, 8)) return;
  const at::Tensor all = torch::randn({2, 20, 48});
  const at::Tensor q = all.narrow(2, 0, 16) * 200, k = all.narrow(2, 16, 16), v = all.narrow(2, 32, 16);
  const at::Tensor own = cpu_attention(q, k, v, 2);
  CHECK(at::isfinite(own).all().item<bool>());
  CHECK(test::relative_difference(own, reference(q, k, v, 2)) <= 1e-4);  // the scores themselves round at 1e-7 * 200
}

TEST_CASE("a sample of a batch has the bits that it has alone, on any number of threads") {
  torch::manual_seed(2);
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
    if (!unet::has_cpu_attention(dtype, 8)) continue;
    const at::Tensor q = torch::randn({3, 100, 16}).to(dtype), k = torch::randn({3, 600, 16}).to(dtype);
    const int threads = at::get_num_threads();
    const at::Tensor together = cpu_attention(q, k, k, 2);
    at::set_num_threads(1);
    CHECK(at::equal(together, cpu_attention(q, k, k, 2)));
    at::set_num_threads(threads);
    for (std::int64_t b = 0; b < 3; ++b)
      CHECK(at::equal(together[b], cpu_attention(q.narrow(0, b, 1), k.narrow(0, b, 1), k.narrow(0, b, 1), 2)[0]));
  }
}

TEST_CASE("CPU attention: NaN in a query spoils its row, in a key or value every row of its head") {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
    if (!unet::has_cpu_attention(dtype, 4)) continue;
    const auto nan_at = [&](int which, std::int64_t row) {
      at::Tensor parts[3];
      for (at::Tensor& part : parts) part = torch::ones({1, 700, 8}).to(dtype);
      parts[which][0][row][1] = nan;  // of the first head
      return at::isnan(cpu_attention(parts[0], parts[1], parts[2], 2));
    };
    const at::Tensor of_query = nan_at(0, 650);
    CHECK(of_query[0][650].narrow(0, 0, 4).all().item<bool>());
    CHECK(of_query.sum().item<std::int64_t>() == 4);
    const at::Tensor of_key = nan_at(1, 650);
    CHECK(of_key.narrow(2, 0, 4).all().item<bool>());
    CHECK_FALSE(of_key.narrow(2, 4, 4).any().item<bool>());
    CHECK(nan_at(2, 650).sum().item<std::int64_t>() == 700);  // one channel of the values
  }
}
