#include "diffusion/sampler.h"

#include <torch/types.h>

#include <limits>

#include "runtime/error.h"
#include "tests/support/thrown.h"

#include <doctest/doctest.h>

namespace laptopdiff::diffusion {
namespace {

using laptopdiff::test::thrown_by;
using runtime::ExitCode;

Conditioning none(std::int64_t, std::int64_t) { return {}; }

at::Tensor toy(const at::Tensor& x, double t, const Context&) { return 0.3 * x + t * 1e-5; }

SampleOptions small_options(std::int64_t count, std::int64_t batch) {
  SampleOptions options;
  options.count = count;
  options.batch = batch;
  options.steps = 5;
  options.shape = {2, 3, 3};
  options.seed = 7;
  return options;
}

at::Tensor run(const char* kind, const SampleOptions& options, const Denoiser& network = toy,
               const ConditioningOf& conditioning = none) {
  const auto scheduler = Scheduler::make({{"skip_prk_steps", true}}, parse_scheduler_kind(kind));
  std::vector<at::Tensor> batches;
  std::int64_t next = 0;
  sample(*scheduler, network, conditioning, options, [&](std::int64_t first, const at::Tensor& samples) {
    CHECK(first == next);
    next += samples.size(0);
    batches.push_back(samples);
  });
  CHECK(next == options.count);
  return at::cat(batches);
}

TEST_CASE("an image does not depend on the batch it is made in") {
  for (const char* kind : {"ddim", "ddpm", "pndm", "dpm++2m", "euler"}) {
    CAPTURE(kind);
    const at::Tensor alone = run(kind, small_options(5, 1));
    CHECK(at::equal(alone, run(kind, small_options(5, 2))));
    CHECK(at::equal(alone, run(kind, small_options(5, 5))));
    CHECK(at::equal(alone.slice(0, 0, 3), run(kind, small_options(3, 3))));
  }
  SampleOptions noisy = small_options(4, 1);
  noisy.eta = 1;
  const at::Tensor alone = run("ddim", noisy);
  noisy.batch = 3;
  CHECK(at::equal(alone, run("ddim", noisy)));
}

TEST_CASE("every image has noise of its own, and another seed other noise") {
  const std::vector<std::int64_t> shape = {4, 8, 8};
  const at::Tensor a = initial_noise(1, 0, shape), b = initial_noise(1, 1, shape), c = initial_noise(2, 0, shape);
  CHECK(at::equal(a, initial_noise(1, 0, shape)));
  CHECK_FALSE(at::equal(a, b));
  CHECK_FALSE(at::equal(a, c));
  CHECK(std::abs(a.mean().item<double>()) < 0.3);
  CHECK(a.std().item<double>() == doctest::Approx(1).epsilon(0.2));
}

TEST_CASE("given latents take the place of the seed's") {
  SampleOptions options = small_options(3, 2);
  std::vector<at::Tensor> rows;
  for (std::int64_t i = 0; i < 3; ++i) rows.push_back(initial_noise(options.seed, i, options.shape));
  const at::Tensor seeded = run("euler", options);
  options.latents = at::stack(rows);
  options.seed = 99;
  CHECK(at::equal(seeded, run("euler", options)));
}

// A network that answers with its context, so that guidance can be read off the first step.
at::Tensor answer(const at::Tensor& x, double, const Context& context) {
  return context.encoder_hidden_states.mean({1, 2}).view({-1, 1, 1, 1}).expand_as(x).contiguous();
}

TEST_CASE("guidance extrapolates from the unconditional output to the conditional one") {
  std::vector<std::int64_t> seen;
  const Denoiser network = [&](const at::Tensor& x, double t, const Context& context) {
    seen.push_back(x.size(0));
    CHECK(context.encoder_hidden_states.size(0) == x.size(0));
    return answer(x, t, context);
  };
  const ConditioningOf conditioning = [](std::int64_t first, std::int64_t count) {
    Conditioning c;
    c.conditional.encoder_hidden_states = at::arange(first, first + count, at::kFloat).view({count, 1, 1}) + 1;
    c.unconditional.encoder_hidden_states = at::full({1, 1, 1}, 0.5F);
    return c;
  };
  SampleOptions options = small_options(3, 2);
  options.latents = at::zeros({3, 2, 3, 3});
  options.steps = 1;
  const auto row_mean = [](const at::Tensor& x, std::int64_t i) { return x[i].mean().item<double>(); };
  const at::Tensor plain = [&] {
    options.guidance = 1;
    return run("euler", options, network, conditioning);
  }();
  CHECK(seen == std::vector<std::int64_t>{2, 1});
  seen.clear();
  options.guidance = 3;
  const at::Tensor guided = run("euler", options, network, conditioning);
  CHECK(seen == std::vector<std::int64_t>{4, 2});
  for (std::int64_t i = 0; i < 3; ++i) {
    const double conditional = static_cast<double>(i) + 1;
    const double unit = row_mean(plain, 0);  // the sample for an output of 1
    CHECK(row_mean(plain, i) == doctest::Approx(unit * conditional));
    CHECK(row_mean(guided, i) == doctest::Approx(unit * (0.5 + 3 * (conditional - 0.5))));
  }
}

TEST_CASE("guidance rescale brings the deviation of the guided output towards the conditional one's") {
  // Unconditional output u, conditional 3 u: guided by 2 it is 5 u, whose deviation is 5/3 of the conditional one's.
  const Denoiser network = [](const at::Tensor& x, double, const Context& context) {
    const at::Tensor u = at::linspace(-1, 1, x[0].numel()).view(x[0].sizes());
    return u * context.encoder_hidden_states.view({-1, 1, 1, 1});
  };
  const ConditioningOf conditioning = [](std::int64_t, std::int64_t count) {
    Conditioning c;
    c.conditional.encoder_hidden_states = at::full({count, 1, 1}, 3.F);
    c.unconditional.encoder_hidden_states = at::full({1, 1, 1}, 1.F);
    return c;
  };
  SampleOptions options = small_options(2, 2);
  options.latents = at::zeros({2, 2, 3, 3});
  options.steps = 1;
  options.guidance = 2;
  const at::Tensor guided = run("euler", options, network, conditioning);
  options.guidance_rescale = 1;
  CHECK(at::allclose(run("euler", options, network, conditioning), guided * 0.6));
  options.guidance_rescale = 0.5;
  CHECK(at::allclose(run("euler", options, network, conditioning), guided * 0.8));
}

TEST_CASE("without an unconditional context there is no guidance") {
  SampleOptions options = small_options(1, 1);
  options.guidance = 9;
  const at::Tensor guided = run("ddim", options);
  options.guidance = 1;
  CHECK(at::equal(guided, run("ddim", options)));
}

TEST_CASE("an output that is not finite names its image and step") {
  const Denoiser network = [](const at::Tensor& x, double t, const Context&) {
    at::Tensor out = x * 0.1;
    if (t < 500 && x.size(0) > 1) out[1][0][0][0] = std::numeric_limits<float>::quiet_NaN();
    return out;
  };
  const auto thrown = thrown_by([&] { run("ddim", small_options(4, 2), network); });
  CHECK(thrown.code == ExitCode::non_finite);
  CHECK(thrown.says("image 1 at step 2 (timestep 400)"));
}

TEST_CASE("impossible sampling options are refused") {
  SampleOptions options = small_options(2, 1);
  const auto thrown = [&] { return thrown_by([&] { run("ddim", options); }); };
  SUBCASE("no images") {
    options.count = 0;
    CHECK(thrown().code == ExitCode::usage);
    CHECK(thrown().says("count 0"));
  }
  SUBCASE("eta above 1") {
    options.eta = 1.5;
    CHECK(thrown().says("eta is 1.5, expected 0 to 1"));
  }
  SUBCASE("guidance that is no number") {
    options.guidance = std::numeric_limits<double>::infinity();
    CHECK(thrown().says("guidance must be a finite number"));
  }
  SUBCASE("a guidance rescale above 1") {
    options.guidance_rescale = 1.5;
    CHECK(thrown().says("guidance rescale is 1.5, expected 0 to 1"));
  }
  SUBCASE("latents for another count") {
    options.latents = at::zeros({3, 2, 3, 3});
    CHECK(thrown().code == ExitCode::bad_input);
    CHECK(thrown().says("latents are [3, 2, 3, 3], expected floats [2, 2, 3, 3]"));
  }
  SUBCASE("latents of whole numbers") {
    options.latents = at::zeros({2, 2, 3, 3}, at::kLong);
    CHECK(thrown().says("expected floats"));
  }
}

}  // namespace
}  // namespace laptopdiff::diffusion
