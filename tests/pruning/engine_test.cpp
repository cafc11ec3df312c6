#include "pruning/engine.h"

#include <torch/types.h>

#include "pruning/output_loss.h"
#include "runtime/error.h"
#include "tests/support/architectures.h"
#include "tests/support/models.h"

#include <doctest/doctest.h>

using namespace laptopdiff;
using test::random_inputs;
using test::random_weights;
using test::small_config;

namespace {

struct Fixture {
  unet::Program base = unet::build_base(small_config());
  unet::Executor executor{base, random_weights(base)};

  std::vector<unet::Program> without(const std::vector<std::vector<unet::Removal>>& sets) const {
    std::vector<unet::Program> variants;
    for (const auto& removed : sets) {
      unet::Spec spec;
      spec.base = base.config;
      spec.removed = removed;
      variants.push_back(unet::prune(base, spec));
    }
    return variants;
  }
  std::vector<unet::Program> single_removals() const { return test::single_removals(base); }
  // One variant at a time, with the same weights.
  at::Tensor naive(const unet::Program& variant, const unet::Inputs& inputs) const {
    return test::naive_forward(executor, variant, inputs);
  }
};

double largest_difference(const at::Tensor& a, const at::Tensor& b) { return (a - b).abs().max().item<double>(); }

}  // namespace

TEST_CASE("one at a time, the engine has the naive loop's bits") {
  const c10::InferenceMode inference;
  const Fixture f;
  const auto variants = f.single_removals();
  const unet::Inputs inputs = random_inputs(f.base.config, 1);
  pruning::EngineOptions options;
  options.max_together = 1;
  const pruning::Engine engine(f.base, f.executor, options);
  const auto outputs = engine.evaluate(engine.plan(variants, 1, 4), inputs);
  REQUIRE(outputs.size() == variants.size());
  for (std::size_t v = 0; v < variants.size(); ++v) CHECK(at::equal(outputs[v], f.naive(variants[v], inputs)));
}

TEST_CASE("variants that run together agree with the naive loop within rounding") {
  const c10::InferenceMode inference;
  const Fixture f;
  const auto variants = f.single_removals();
  const unet::Inputs inputs = random_inputs(f.base.config, 3);
  for (const std::int64_t memory : {std::int64_t{1}, std::int64_t{1} << 22, std::int64_t{1} << 32}) {
    pruning::EngineOptions options;
    options.memory_bytes = memory;  // from a chunk a variant to all in one
    const pruning::Engine engine(f.base, f.executor, options);
    const auto outputs = engine.evaluate(engine.plan(variants, 3, 4), inputs);
    for (std::size_t v = 0; v < variants.size(); ++v) {
      const at::Tensor expected = f.naive(variants[v], inputs);
      CHECK(largest_difference(outputs[v], expected) <= 1e-5 * (expected.max() - expected.min()).item<double>());
    }
  }
}

TEST_CASE("sets of removals, drops and whole stages share one walk") {
  const c10::InferenceMode inference;
  const Fixture f;
  using unet::How;
  const auto variants = f.without({
      {},
      {{"down_blocks.0.resnets.1", How::bypass}, {"up_blocks.2.attentions.1", How::bypass}},
      {{"down_blocks.0.resnets.1", How::bypass},
       {"up_blocks.2.attentions.1", How::bypass},
       {"mid_block.resnets.0", How::bypass}},
      {{"down_blocks.1.resnets.1", How::drop}, {"up_blocks.1.resnets.1", How::drop}},
      {{"down_blocks.2", How::drop}, {"mid_block", How::drop}, {"up_blocks.0", How::drop}},
  });
  const unet::Inputs inputs = random_inputs(f.base.config, 2);
  const pruning::Engine engine(f.base, f.executor);
  const auto outputs = engine.evaluate(engine.plan(variants, 2, 4), inputs);
  for (std::size_t v = 0; v < variants.size(); ++v)
    CHECK(largest_difference(outputs[v], f.naive(variants[v], inputs)) < 1e-4);
}

// SD 1.5: 39 without reuse; SDXL: 88.
TEST_CASE("prefix reuse leaves SD 1.5 with 22.3 forwards' work and SDXL with 47.4") {
  struct Case {
    runtime::Json config;
    std::size_t variants;
    double forwards;
  };
  for (const Case& c : {Case{test::sd15(), 39, 22.3}, Case{test::sdxl(), 88, 47.4}}) {
    const unet::Program base = unet::build_base(unet::parse_config(c.config, "config.json"));
    std::vector<unet::Program> variants{base};
    unet::Spec spec;
    spec.base = base.config;
    for (const unet::Unit& unit : unet::find_units(base)) {
      spec.removed = {{unit.layer, unet::How::bypass}};
      variants.push_back(unet::prune(base, spec));
    }
    REQUIRE(variants.size() == c.variants);
    const pruning::EngineOptions together{std::int64_t{1} << 40};  // where chunks part, prefixes run again
    const pruning::Plan plan = pruning::make_plan(base, variants, together, 1, 2);
    CHECK(static_cast<double>(plan.macs) / static_cast<double>(base.macs()) ==
          doctest::Approx(c.forwards).epsilon(0.005));
  }
}

TEST_CASE("output loss and Gram matrix are what their definitions say") {
  const c10::InferenceMode inference;
  const Fixture f;
  const unet::Inputs inputs = random_inputs(f.base.config, 5);
  pruning::OutputLossOptions options;
  options.batch = 2;  // the last batch is short
  const pruning::Scores scores = pruning::score_output_loss(f.base, f.executor, inputs, options);
  const auto variants = f.single_removals();
  const at::Tensor all = f.naive(variants[0], inputs);
  REQUIRE(scores.units.size() + 1 == variants.size());
  std::vector<at::Tensor> differences;
  for (std::size_t i = 0; i < scores.units.size(); ++i) differences.push_back(f.naive(variants[i + 1], inputs) - all);
  for (std::size_t i = 0; i < differences.size(); ++i) {
    const double expected = differences[i].square().mean().item<double>();
    CHECK(*scores.unit_scores[i].value == doctest::Approx(expected).epsilon(1e-4));
    CHECK(*scores.gram[i][i] == doctest::Approx(*scores.unit_scores[i].value).epsilon(1e-9));
    const std::size_t j = (i * 7 + 3) % differences.size();
    CHECK(*scores.gram[i][j] ==
          doctest::Approx((differences[i] * differences[j]).mean().item<double>()).epsilon(1e-3).scale(1e-4));
    CHECK(*scores.gram[i][j] == *scores.gram[j][i]);
  }
}
