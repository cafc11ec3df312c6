// The kernels, layers and graphs of an executor for inference on a GPU, against LibTorch on the CPU in double or f32.
#include "runtime/gpu.h"

#include <torch/types.h>

#include <cmath>
#include <limits>

#include "pruning/engine.h"
#include "tests/support/gpu.h"
#include "tests/support/models.h"
#include "tests/support/tolerance.h"
#include "unet/gpu_ops.h"
#include "unet/weights.h"

#include <doctest/doctest.h>

using namespace laptopdiff;

namespace {

const at::Device kGpu(at::kCUDA, 0);
constexpr at::ScalarType kTypes[] = {at::kFloat, at::kBFloat16, at::kHalf};

at::Tensor on_gpu(const at::Tensor& tensor, at::ScalarType dtype) {
  return tensor.defined() ? tensor.to(kGpu, dtype) : tensor;
}

// The same norm in double on the CPU, of operands rounded as the kernel gets them.
at::Tensor exact_group_norm(const at::Tensor& image, const unet::GroupNorm& norm) {
  const auto wide = [](const at::Tensor& x) { return x.to(at::kCPU, at::kDouble); };
  const auto pixelwise = [&](const at::Tensor& x) { return wide(x).unsqueeze(2).unsqueeze(3); };
  at::Tensor x = wide(image);
  if (norm.add.defined()) x = x + pixelwise(norm.add);
  x = at::group_norm(x, norm.groups, wide(norm.gain), wide(norm.bias), norm.eps);
  if (norm.scale.defined()) x = x * (1 + pixelwise(norm.scale)) + pixelwise(norm.shift);
  return norm.silu ? at::silu(x) : x;
}

struct Shape {
  std::int64_t batch, channels, height, width, groups;
};

unet::GroupNorm random_norm(const Shape& s, at::ScalarType dtype, bool add, bool scale, bool silu) {
  unet::GroupNorm norm{s.groups, 1e-5};
  norm.gain = on_gpu(1 + 0.1 * at::randn({s.channels}), dtype);
  norm.bias = on_gpu(0.1 * at::randn({s.channels}), dtype);
  if (add) norm.add = on_gpu(at::randn({s.batch, s.channels}), dtype);
  if (scale) {
    const auto halves = on_gpu(0.3 * at::randn({s.batch, 2 * s.channels}), dtype).chunk(2, 1);  // rows apart
    norm.scale = halves[0];
    norm.shift = halves[1];
  }
  norm.silu = silu;
  return norm;
}

at::Tensor channels_last(const at::Tensor& image) { return image.contiguous(at::MemoryFormat::ChannelsLast); }

unet::Executor gpu_executor(const unet::Program& program, const runtime::TensorMap& weights, at::ScalarType dtype) {
  return unet::Executor::for_inference(program, unet::convert(weights, dtype, kGpu));
}

}  // namespace

TEST_CASE("on a GPU group normalization is exact within rounding" * doctest::skip(test::no_gpu())) {
  const c10::InferenceMode inference;
  torch::manual_seed(3);
  const std::vector<Shape> shapes = {{2, 320, 64, 64, 32}, {1, 2560, 8, 8, 32}, {3, 1280, 1, 1, 32},
                                     {2, 960, 32, 32, 32}, {2, 16, 7, 9, 8},    {1, 30, 5, 3, 3},
                                     {2, 8, 13, 1, 8},     {1, 5000, 2, 2, 4}};
  for (const Shape& s : shapes) {
    for (const at::ScalarType dtype : kTypes) {
      for (const int which : {0, 1, 2, 3}) {
        CAPTURE(s.channels);
        CAPTURE(which);
        const at::Tensor image =
            channels_last(on_gpu(at::randn({s.batch, s.channels, s.height, s.width}) + 0.5, dtype));
        const unet::GroupNorm norm = random_norm(s, dtype, which == 1 || which == 3, which >= 2, which % 2 == 1);
        const at::Tensor own = unet::gpu_group_norm(image, norm);
        CHECK((own.scalar_type() == dtype));
        CHECK(own.is_contiguous(at::MemoryFormat::ChannelsLast));
        const bool too_wide = s.channels > 4096;  // for the kernel: LibTorch's operations, each of which rounds
        const double bound = dtype == at::kFloat ? 5e-6 : (too_wide ? 3 : 1) * test::rounding_of(dtype);
        CHECK(test::relative_difference(own.cpu(), exact_group_norm(image, norm)) <= bound);
        CHECK(at::equal(own, unet::gpu_group_norm(image, norm)));
        // What else is in the batch is of no matter.
        unet::GroupNorm first = norm;
        for (at::Tensor* rows : {&first.add, &first.scale, &first.shift})
          if (rows->defined()) *rows = rows->narrow(0, 0, 1);
        CHECK(at::equal(own.narrow(0, 0, 1), unet::gpu_group_norm(image.narrow(0, 0, 1), first)));
      }
    }
  }
}

TEST_CASE("on a GPU group normalization keeps a small deviation beside a large mean, and NaN to its group" *
          doctest::skip(test::no_gpu())) {
  const c10::InferenceMode inference;
  const Shape s{2, 64, 16, 16, 8};
  const unet::GroupNorm norm = random_norm(s, at::kFloat, false, false, false);
  at::Tensor image = channels_last(on_gpu(at::randn({2, 64, 16, 16}) + 4000, at::kFloat));
  CHECK(test::relative_difference(unet::gpu_group_norm(image, norm).cpu(), exact_group_norm(image, norm)) <= 1e-3);
  for (const float bad : {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity()}) {
    at::Tensor broken = image.clone();
    broken[1][9][3][4] = bad;  // group 1 of sample 1
    const at::Tensor own = unet::gpu_group_norm(broken, norm), whole = unet::gpu_group_norm(image, norm);
    CHECK(own[1].slice(0, 8, 16).isnan().all().item<bool>());
    CHECK(at::equal(own[0], whole[0]));
    CHECK(at::equal(own[1].slice(0, 16, 64), whole[1].slice(0, 16, 64)));
    CHECK(at::equal(own[1].slice(0, 0, 8), whole[1].slice(0, 0, 8)));
  }
}

TEST_CASE("on a GPU GEGLU and convolutions with what is added to them are exact within rounding" *
          doctest::skip(test::no_gpu())) {
  const c10::InferenceMode inference;
  runtime::make_gpu_repeatable();
  torch::manual_seed(4);
  for (const at::ScalarType dtype : kTypes) {
    for (const std::int64_t width : {1280, 36, 7}) {
      const at::Tensor halves = on_gpu(at::randn({2, 5, 2 * width}), dtype);
      const auto exact = halves.to(at::kCPU, at::kDouble).chunk(2, -1);
      CHECK(test::relative_difference(unet::gpu_geglu(halves).cpu(), exact[0] * at::gelu(exact[1])) <=
            test::rounding_of(dtype));
    }
    for (const std::int64_t size : {1, 3}) {
      for (const std::int64_t channels : {64, 6}) {
        for (const int which : {0, 1, 2, 3}) {
          const at::Tensor image = channels_last(on_gpu(at::randn({2, channels, 9, 8}), dtype)),
                           kernel = channels_last(on_gpu(at::randn({24, channels, size, size}) / 24, dtype));
          const at::Tensor bias = which % 2 == 1 ? on_gpu(at::randn({24}), dtype) : at::Tensor(),
                           residual = which >= 2 ? on_gpu(at::randn({2, 24, 9, 8}), dtype) : at::Tensor();
          const auto wide = [](const at::Tensor& x) { return x.defined() ? x.to(at::kCPU, at::kDouble) : x; };
          at::Tensor exact = at::conv2d(wide(image), wide(kernel), wide(bias), 1, size / 2);
          if (residual.defined()) exact = exact + wide(residual);
          const at::Tensor own = unet::gpu_conv(image, kernel, bias, 1, size / 2, residual);
          CHECK(own.is_contiguous(at::MemoryFormat::ChannelsLast));
          CHECK(test::relative_difference(own.cpu(), exact) <= test::rounding_of(dtype));
        }
      }
    }
  }
}

TEST_CASE("on a GPU more elements than 32 bits count are no limit" * doctest::skip(test::no_gpu())) {
  const c10::InferenceMode inference;
  const std::int64_t rows = 210'000, width = 10'240;  // 2^31 outputs and some; 13 GB in all
  const auto options = at::TensorOptions(at::kHalf).device(kGpu);
  at::Tensor own = unet::gpu_geglu(at::ones({rows, 2 * width}, options));
  CHECK(own.eq(own[0][0]).all().item<bool>());
  CHECK(own[0][0].item<double>() == doctest::Approx(0.8413).epsilon(1e-3));  // GELU of 1
}

TEST_CASE("on a GPU attention is exact within rounding and gives the same bits again" * doctest::skip(test::no_gpu())) {
  const c10::InferenceMode inference;
  runtime::make_gpu_repeatable();
  torch::manual_seed(5);
  for (const at::ScalarType dtype : kTypes) {
    for (const std::int64_t width : {40, 64, 160, 12}) {
      for (const std::int64_t keys : {300, 77}) {
        const auto rows = [&](std::int64_t count) {  // as they come from one product: heads side by side
          return on_gpu(at::randn({2, count, 3 * width}), dtype).view({2, count, 3, width}).transpose(1, 2);
        };
        const at::Tensor q = rows(300), k = rows(keys), v = rows(keys);
        const auto wide = [](const at::Tensor& x) { return x.to(at::kCPU, at::kDouble); };
        const at::Tensor own = unet::gpu_attention(q, k, v);
        CHECK(test::relative_difference(own.cpu(), at::scaled_dot_product_attention(wide(q), wide(k), wide(v))) <=
              (dtype == at::kFloat ? 1e-5 : 2 * test::rounding_of(dtype)));
        CHECK(at::equal(own, unet::gpu_attention(q, k, v)));
      }
    }
  }
}

TEST_CASE("on a GPU an executor for inference gives the plain one's output within rounding" *
          doctest::skip(test::no_gpu())) {
  const c10::InferenceMode inference;
  runtime::make_gpu_repeatable();
  for (const unet::Config& config : test::small_configs()) {
    const unet::Program program = unet::build_base(config);
    const runtime::TensorMap weights = test::random_weights(program);
    for (const at::ScalarType dtype : kTypes) {
      const runtime::TensorMap typed = unet::convert(weights, dtype, kGpu);
      const unet::Executor fast = gpu_executor(program, weights, dtype), plain(program, typed);
      for (const std::int64_t batch : {1, 3, 1, 1, 3}) {  // as it is, recorded, and replayed
        const unet::Inputs inputs = test::random_inputs(config, batch, static_cast<std::uint64_t>(batch + 10));
        const at::Tensor exact = unet::Executor(program, weights).forward(inputs);
        const unet::Inputs own = unet::to(inputs, dtype, kGpu);
        const at::Tensor output = fast.forward(own);
        const double error = test::relative_difference(output.cpu(), exact),
                     of_plain = test::relative_difference(plain.forward(own).cpu(), exact);
        CHECK(output.is_contiguous());
        CHECK((output.scalar_type() == dtype));
        if (dtype == at::kFloat) CHECK(error <= 1e-5);
        else CHECK(error <= 1.5 * of_plain + 1.0 / 256);
      }
    }
  }
}

TEST_CASE("on a GPU a recorded pass has the bits of one that is not" * doctest::skip(test::no_gpu())) {
  const c10::InferenceMode inference;
  runtime::make_gpu_repeatable();
  const unet::Program program = unet::build_base(test::small_config());
  const unet::Executor executor = gpu_executor(program, test::random_weights(program), at::kBFloat16);
  std::vector<at::Tensor> kept, expected;
  for (std::uint64_t pass = 0; pass < 24; ++pass) {  // six kinds of inputs in turn, more than are remembered
    const auto kind = static_cast<std::int64_t>(pass % 8 < 4 ? pass % 4 : pass % 6);
    unet::Inputs inputs = test::random_inputs(program.config, 1 + kind, pass);
    inputs = unet::to(inputs, at::kBFloat16, kGpu);
    kept.push_back(executor.forward(inputs));
    expected.push_back(test::naive_forward(executor, program, inputs));
  }
  for (std::size_t i = 0; i < kept.size(); ++i) CHECK(at::equal(kept[i], expected[i]));  // no output was written again
}

TEST_CASE("on a GPU variants are recorded apart" * doctest::skip(test::no_gpu())) {
  const c10::InferenceMode inference;
  runtime::make_gpu_repeatable();
  const unet::Program base = unet::build_base(test::small_config());
  const unet::Executor executor = gpu_executor(base, test::random_weights(base), at::kFloat);
  const auto variants = test::single_removals(base);
  for (std::uint64_t pass = 0; pass < 4; ++pass) {
    const unet::Inputs inputs = unet::to(test::random_inputs(base.config, 2, pass), at::kFloat, kGpu);
    for (const std::size_t v : {0, 1, 2}) {
      const at::Tensor naive = test::naive_forward(executor, variants[v], inputs);
      CHECK(at::equal(executor.forward(variants[v], inputs), naive));
    }
  }
}

TEST_CASE("on a GPU the engine is close to the naive loop, and gives the same bits again" *
          doctest::skip(test::no_gpu())) {
  const c10::InferenceMode inference;
  runtime::make_gpu_repeatable();
  const unet::Program base = unet::build_base(test::small_config());
  const auto variants = test::single_removals(base);
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
    const unet::Executor executor = gpu_executor(base, test::random_weights(base), dtype);
    for (const std::int64_t memory : {std::int64_t{1}, std::int64_t{1} << 32}) {
      pruning::EngineOptions options;
      options.memory_bytes = memory;
      const pruning::Engine engine(base, executor, options);
      const unet::Inputs inputs = unet::to(test::random_inputs(base.config, 2), dtype, kGpu);
      const pruning::Plan plan = engine.plan(variants, 2, 4);
      const auto outputs = engine.evaluate(plan, inputs), again = engine.evaluate(plan, inputs);
      for (std::size_t v = 0; v < variants.size(); ++v) {
        const at::Tensor naive = test::naive_forward(executor, variants[v], inputs);
        CHECK(test::relative_difference(outputs[v].cpu(), naive.cpu()) <= (dtype == at::kFloat ? 1e-5 : 0.03));
        CHECK(at::equal(outputs[v], again[v]));
      }
    }
  }
}

TEST_CASE("on a GPU the peak of memory is counted" * doctest::skip(test::no_gpu())) {
  const std::int64_t before = runtime::peak_gpu_bytes(kGpu);
  {
    const at::Tensor large = at::empty({before + (std::int64_t{64} << 20)}, at::TensorOptions(at::kByte).device(kGpu));
  }
  CHECK(runtime::peak_gpu_bytes(kGpu) >= before + (std::int64_t{64} << 20));
}
