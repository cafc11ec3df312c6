// An executor made for inference against the plain one.
#include <torch/types.h>

#include "pruning/engine.h"
#include "tests/support/models.h"
#include "tests/support/tolerance.h"
#include "unet/packed_layers.h"
#include "unet/weights.h"

#include <doctest/doctest.h>

using namespace laptopdiff;
using test::random_weights;

TEST_CASE("an executor for inference gives the plain one's output within rounding") {
  const c10::InferenceMode inference;
  for (const unet::Config& config : test::small_configs()) {
    const unet::Program program = unet::build_base(config);
    const runtime::TensorMap weights = random_weights(program);
    for (const std::int64_t batch : {1, 3}) {
      const unet::Inputs inputs = test::random_inputs(config, batch);
      const at::Tensor exact = unet::Executor(program, weights).forward(inputs);
      for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
        const runtime::TensorMap own = unet::convert(weights, dtype, at::kCPU);
        const unet::Inputs typed = unet::to(inputs, dtype, at::kCPU);
        const at::Tensor fast = unet::Executor::for_inference(program, own).forward(typed);
        const double error = test::relative_difference(fast, exact);
        const double plain = test::relative_difference(unet::Executor(program, own).forward(typed), exact);
        CHECK(fast.is_contiguous());
        CHECK((fast.scalar_type() == dtype));
        if (dtype == at::kFloat) CHECK(error <= 5e-6);
        else CHECK(error <= 1.5 * plain + 1.0 / 256);  // no coarser than one rounding an operation
      }
    }
  }
}

TEST_CASE("an executor for inference takes images of other sizes than it was packed for") {
  const c10::InferenceMode inference;
  const unet::Config config = test::small_config();
  const unet::Program program = unet::build_base(config);
  const runtime::TensorMap weights = random_weights(program);
  const unet::Executor exact(program, weights), fast = unet::Executor::for_inference(program, weights);
  for (const std::int64_t size : {7, 10, 12}) {  // up-sampled to twice the size, and to one less
    unet::Inputs inputs = test::random_inputs(config, 2);
    inputs.sample = at::randn({2, inputs.sample.size(1), size, size + 1});
    CHECK(test::relative_difference(fast.forward(inputs), exact.forward(inputs)) <= 5e-6);
  }
}

TEST_CASE("an executor for inference lets go of the weights that it has packed") {
  const unet::Program program = unet::build_base(test::small_config());
  runtime::TensorMap weights = random_weights(program);
  const auto watched = weights.at("mid_block.resnets.0.conv1.weight").getIntrusivePtr();
  const unet::Executor executor = unet::Executor::for_inference(program, std::move(weights));
  if (unet::can_pack(at::kFloat)) CHECK(watched.use_count() == 1);
}

TEST_CASE("the engine has the naive loop's bits on packed weights, one at a time, and is close to it in batches") {
  const c10::InferenceMode inference;
  const unet::Program base = unet::build_base(test::small_config());
  const unet::Executor executor = unet::Executor::for_inference(base, random_weights(base));
  const auto variants = test::single_removals(base);
  for (const int together : {1, 0}) {
    pruning::EngineOptions options;
    options.max_together = together;
    const pruning::Engine engine(base, executor, options);
    for (const std::int64_t batch : {1, 2}) {
      const unet::Inputs inputs = test::random_inputs(base.config, batch);
      const auto outputs = engine.evaluate(engine.plan(variants, batch, 4), inputs);
      for (std::size_t v = 0; v < variants.size(); ++v) {
        const at::Tensor naive = test::naive_forward(executor, variants[v], inputs);
        if (together == 1) CHECK(at::equal(outputs[v], naive));
        else CHECK(test::relative_difference(outputs[v], naive) <= 1e-5);
      }
    }
  }
}
