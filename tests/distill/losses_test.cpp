#include "distill/losses.h"

#include <torch/types.h>
#include <torch/utils.h>

#include "distill/balance.h"
#include "distill/optimizer.h"
#include "tests/support/models.h"
#include "tests/support/thrown.h"

#include <doctest/doctest.h>

using namespace laptopdiff;
using distill::Features;

namespace {

double number(const at::Tensor& t) { return t.item<double>(); }

Features features(std::vector<at::Tensor> taps) { return {torch::zeros({1, 1, 1, 1}), std::move(taps)}; }

}  // namespace

TEST_CASE("balance weights are their formulas") {
  // mean squares 4 and 100; norms sqrt(2 * 4) and sqrt(4 * 100)
  const std::vector<at::Tensor> teacher = {torch::full({1, 2}, 2.0f), torch::full({1, 4}, 10.0f)};
  const double n0 = std::sqrt(8.0), n1 = 20;
  const auto weights = [&](const char* name) { return distill::balance_weights(name, teacher); };
  CHECK(number(weights("plain")[1]) == 1);
  CHECK(number(weights("rel_sq")[0]) == doctest::Approx(0.25));
  CHECK(number(weights("rel_sq")[1]) == doctest::Approx(0.01));
  CHECK(number(weights("rel_norm")[1]) == doctest::Approx(0.1));
  CHECK(number(weights("norm_max")[0]) == doctest::Approx(n1 / n0));
  CHECK(number(weights("norm_max")[1]) == doctest::Approx(1));
  CHECK(number(weights("norm_mean")[0]) == doctest::Approx((n0 + n1) / 2 / n0));
  const auto thrown = test::thrown_by([&] { weights("rel_square"); });
  CHECK(thrown.says("rel_sq"));
}

TEST_CASE("relative terms do not change when teacher and student are scaled together") {
  torch::manual_seed(0);
  const at::Tensor t0 = torch::randn({2, 3, 4, 4}), s0 = torch::randn({2, 3, 4, 4}), t1 = torch::randn({2, 5}),
                   s1 = torch::randn({2, 5});
  const std::vector<distill::TapPair> pairs = {{"a", {1}, {1}}, {"b", {2}, {2}}};
  distill::LossConfig config;
  config.balance = "rel_sq";
  const at::Tensor target = torch::zeros({1, 1, 1, 1});
  const auto plain = distill::compute_losses(config, features({s0, s1}), features({t0, t1}), pairs, target, {});
  const auto scaled =
      distill::compute_losses(config, features({100 * s0, s1}), features({100 * t0, t1}), pairs, target, {});
  CHECK(number(plain.feature) == doctest::Approx(number(scaled.feature)).epsilon(1e-5));
  CHECK(number(scaled.raw[0]) == doctest::Approx(1e4 * number(plain.raw[0])).epsilon(1e-5));
}

TEST_CASE("the three parts add up with their weights") {
  const Features student{torch::full({2, 1, 2, 2}, 3.0f), {torch::full({1}, 1.0f)}};
  const Features teacher{torch::full({2, 1, 2, 2}, 1.0f), {torch::full({1}, 2.0f)}};
  distill::LossConfig config;
  config.task = 2;
  config.output = 0.5;
  config.feature = 10;
  config.balance = "plain";
  const auto losses =
      distill::compute_losses(config, student, teacher, {{"a", {1}, {1}}}, torch::zeros({2, 1, 2, 2}), {});
  CHECK(number(losses.task) == 18);     // 2 * 3^2
  CHECK(number(losses.output) == 2);    // 0.5 * 2^2
  CHECK(number(losses.feature) == 10);  // 10 * 1^2
  CHECK(number(losses.total) == 30);
  const auto weighted = distill::compute_losses(config, student, teacher, {{"a", {1}, {1}}}, torch::zeros({2, 1, 2, 2}),
                                                torch::tensor({0.0f, 1.0f}));
  CHECK(number(weighted.task) == 9);
}

TEST_CASE("features of different shapes are refused by the tap's name") {
  const auto thrown = test::thrown_by([] {
    distill::compute_losses({}, features({torch::zeros({1, 2})}), features({torch::zeros({1, 3})}),
                            {{"up_blocks.1", {1}, {1}}}, torch::zeros({1, 1, 1, 1}), {});
  });
  CHECK(thrown.says("up_blocks.1"));
  CHECK(thrown.says("[1, 3]"));
}

TEST_CASE("tap points see what the executor's hidden states are") {
  const unet::Program base = unet::build_base(test::small_config());
  const unet::Executor network(base, test::random_weights(base));
  const unet::Inputs inputs = test::random_inputs(base.config, 2);
  const auto shell = std::find_if(base.steps.begin(), base.steps.end(),
                                  [](const unet::Step& s) { return s.kind == unet::StepKind::shell_out; });
  const int after = shell->position, before = after - 5;
  const Features found = distill::run_with_taps(
      network, inputs, {{"proj_out", {after, before}, {after}}, {"same", {after}, {after}}}, distill::Side::teacher);
  unet::State state = network.start(inputs);
  at::Tensor residual;
  for (const unet::Step& step : base.steps) {
    if (step.position > after) break;
    network.run(step, state);
    if (step.position == before) residual = state.hidden;
  }
  CHECK(at::equal(found.taps[1], state.hidden));
  CHECK(at::equal(found.taps[0], state.hidden - residual));
}

TEST_CASE("AdamW and the average follow their recurrences") {
  distill::OptimizerConfig config;
  config.learning_rate = 0.1;
  config.clip_norm = 0;
  config.weight_decay = 0.01;
  distill::TrainState state = distill::initial_state({{"w", torch::tensor({1.0f, -2.0f})}}, config, at::kCPU);
  std::vector<double> w{1, -2}, m{0, 0}, v{0, 0}, ema{1, -2};
  for (int n = 1; n <= 4; ++n) {
    (state.weights["w"].square().sum() * 0.5).backward();  // gradient w
    distill::update(state, config, 4);
    for (int i = 0; i < 2; ++i) {
      const double g = w[i];
      m[i] = 0.9 * m[i] + 0.1 * g;
      v[i] = 0.999 * v[i] + 0.001 * g * g;
      w[i] -= 0.1 * 0.01 * w[i];
      w[i] -= 0.1 * (m[i] / (1 - std::pow(0.9, n))) / (std::sqrt(v[i] / (1 - std::pow(0.999, n))) + 1e-8);
      const double decay = distill::ema_decay(config, n);
      ema[i] = decay * ema[i] + (1 - decay) * w[i];
      CHECK(state.weights["w"][i].item<double>() == doctest::Approx(w[i]).epsilon(1e-5));
      CHECK(state.averaged["w"][i].item<double>() == doctest::Approx(ema[i]).epsilon(1e-5));
    }
  }
  CHECK(state.step == 4);
}

TEST_CASE("the EMA decay warms up as in the published trainer") {
  const distill::OptimizerConfig config;
  CHECK(distill::ema_decay(config, 1) == 0);
  CHECK(distill::ema_decay(config, 2) == doctest::Approx(2.0 / 11));
  CHECK(distill::ema_decay(config, 11) == doctest::Approx(11.0 / 20));
  CHECK(distill::ema_decay(config, 10'000'000) == 0.9999);
}

TEST_CASE("learning-rate schedules start, warm up and end where they should") {
  distill::OptimizerConfig config;
  config.learning_rate = 1;
  CHECK(distill::learning_rate(config, 99, 100) == 1);
  config.schedule = "cosine";
  CHECK(distill::learning_rate(config, 0, 100) == 1);
  CHECK(distill::learning_rate(config, 50, 100) == doctest::Approx(0.5));
  config.warmup = 10;
  CHECK(distill::learning_rate(config, 0, 100) == doctest::Approx(0.1));
  CHECK(distill::learning_rate(config, 9, 100) == doctest::Approx(1));
  config.schedule = "linear";
  CHECK(distill::learning_rate(config, 55, 100) == doctest::Approx(0.5));
}

TEST_CASE("clipping bounds the joint gradient norm") {
  distill::OptimizerConfig config;
  config.clip_norm = 1;
  distill::TrainState state =
      distill::initial_state({{"a", torch::tensor({3.0f})}, {"b", torch::tensor({4.0f})}}, config, at::kCPU);
  ((state.weights["a"].square().sum() + state.weights["b"].square().sum()) * 0.5).backward();
  CHECK(number(distill::update(state, config, 1)) == doctest::Approx(5));
  CHECK(number(state.first_moment["a"]) == doctest::Approx(0.1 * 3 / 5).epsilon(1e-4));
}

TEST_CASE("gradients through the executor agree with finite differences") {
  const unet::Program base = unet::build_base(test::small_config());
  runtime::TensorMap weights = test::random_weights(base);
  for (auto& [name, tensor] : weights) tensor = tensor.to(at::kDouble).set_requires_grad(true);
  unet::Inputs inputs = unet::to(test::random_inputs(base.config, 1), at::kDouble, at::kCPU);
  const unet::Executor network(base, weights);
  const auto loss = [&] { return network.forward(inputs).square().mean(); };
  loss().backward();
  for (const char* name :
       {"down_blocks.0.resnets.0.conv1.weight", "up_blocks.2.attentions.1.transformer_blocks.0.attn1.to_q.weight",
        "mid_block.attentions.0.transformer_blocks.0.ff.net.2.weight", "conv_in.bias"}) {
    at::Tensor& tensor = weights.at(name);
    const double analytic = tensor.grad().flatten()[3].item<double>();
    const at::NoGradGuard no_grad;
    const double step = 1e-5;
    at::Tensor entry = tensor.flatten()[3];
    entry.add_(step);
    const double above = number(loss());
    entry.sub_(2 * step);
    const double below = number(loss());
    entry.add_(step);
    CHECK(analytic == doctest::Approx((above - below) / (2 * step)).epsilon(1e-3).scale(1e-6));
  }
}
