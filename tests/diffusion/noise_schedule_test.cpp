#include "diffusion/noise_schedule.h"

#include <torch/types.h>

#include "tests/support/temporary_folder.h"
#include "tests/support/thrown.h"

#include <doctest/doctest.h>

namespace laptopdiff::diffusion {
namespace {

using laptopdiff::test::put_bytes;
using laptopdiff::test::TemporaryFolder;
using laptopdiff::test::thrown_by;
using runtime::Json;

const Json kStableDiffusion = {{"beta_start", 0.00085}, {"beta_end", 0.012}, {"beta_schedule", "scaled_linear"}};

double alpha_at(const NoiseSchedule& schedule, std::int64_t t) { return schedule.alphas_cumprod[t].item<double>(); }

TEST_CASE("published noise schedules") {
  const auto near = [](double value) { return doctest::Approx(value).epsilon(1e-6); };
  SUBCASE("Stable Diffusion") {
    const NoiseSchedule schedule = noise_schedule(kStableDiffusion);
    CHECK(alpha_at(schedule, 0) == near(.99914998));
    CHECK(alpha_at(schedule, 1) == near(.99829602));
    CHECK(alpha_at(schedule, 250) == near(.6737923));
    CHECK(alpha_at(schedule, 500) == near(.27633247));
    CHECK(alpha_at(schedule, 750) == near(.0561698));
    CHECK(alpha_at(schedule, 999) == near(.0046600951));
  }
  SUBCASE("DDPM, which is the default") {
    const NoiseSchedule schedule = noise_schedule(Json::object());
    CHECK(alpha_at(schedule, 0) == near(.9999));
    CHECK(alpha_at(schedule, 250) == near(.52142298));
    CHECK(alpha_at(schedule, 999) == near(4.0358304e-05));
  }
  SUBCASE("zero terminal signal") {
    Json config = kStableDiffusion;
    config["rescale_betas_zero_snr"] = true;
    const NoiseSchedule schedule = noise_schedule(config);
    CHECK(alpha_at(schedule, 0) == near(.99914998));
    CHECK(alpha_at(schedule, 500) == near(.24101855));
    CHECK(alpha_at(schedule, 998) == doctest::Approx(1.968e-07).epsilon(1e-3));
    CHECK(alpha_at(schedule, 999) == 0);
  }
}

TEST_CASE("what noise and target make, the conversions take apart again") {
  for (const char* prediction : {"epsilon", "v_prediction", "sample"}) {
    CAPTURE(prediction);
    Json config = kStableDiffusion;
    config["prediction_type"] = prediction;
    const NoiseSchedule schedule = noise_schedule(config);
    const at::Tensor t = at::tensor({0, 500, 999}, at::kLong);
    const at::Tensor x0 = at::randn({3, 2, 4, 4}), noise = at::randn({3, 2, 4, 4});
    const at::Tensor x = add_noise(schedule, x0, noise, t), target = training_target(schedule, x0, noise, t);
    CHECK(at::allclose(predicted_x0(schedule, x, target, t), x0, 1e-4, 1e-4));
    CHECK(at::allclose(predicted_epsilon(schedule, x, target, t), noise, 1e-3, 1e-3));
  }
}

TEST_CASE("the signal-to-noise ratio is that of the forward process") {
  const NoiseSchedule schedule = noise_schedule(kStableDiffusion);
  const at::Tensor snr = signal_to_noise(schedule, at::tensor({500}, at::kLong));
  CHECK(snr.item<double>() == doctest::Approx(.27633247 / (1 - .27633247)));
}

TEST_CASE("schedules that are not supported are refused") {
  Json config = Json::object();
  std::string expected;
  SUBCASE("an unknown law") {
    config["beta_schedule"] = "laplace";
    expected = "`beta_schedule` \"laplace\" is not supported";
  }
  SUBCASE("an unknown prediction") {
    config["prediction_type"] = "epsilom";
    expected = "`prediction_type` \"epsilom\" is not supported (did you mean `epsilon`";
  }
  SUBCASE("betas outside (0, 1)") {
    config["beta_end"] = 1.5;
    expected = "must lie in (0, 1)";
  }
  SUBCASE("trained betas of another length") {
    config["trained_betas"] = {0.1, 0.2};
    expected = "`trained_betas` has 2 entries, `num_train_timesteps` is 1000";
  }
  SUBCASE("trained betas that are none") {
    config["trained_betas"] = Json::array();
    expected = "`trained_betas` has 0 entries, `num_train_timesteps` is 1000";
  }
  SUBCASE("no steps") {
    config["num_train_timesteps"] = 0;
    expected = "`num_train_timesteps` is 0";
  }
  const auto thrown = thrown_by([&] { noise_schedule(config, "s.json"); });
  CAPTURE(thrown.message);
  CHECK(thrown.code == runtime::ExitCode::bad_input);
  CHECK(thrown.says("s.json"));
  CHECK(thrown.says(expected));
}

TEST_CASE("the infinity that diffusers writes into its configs is read as a text") {
  const TemporaryFolder folder;
  put_bytes(folder / "s.json", R"({"a": -Infinity, "b": [Infinity, NaN], "c": "-Infinity \" Infinity", "d": 1})");
  const Json json = read_scheduler_config(folder / "s.json");
  CHECK(json == Json{{"a", "-Infinity"}, {"b", {"Infinity", "NaN"}}, {"c", "-Infinity \" Infinity"}, {"d", 1}});
}

}  // namespace
}  // namespace laptopdiff::diffusion
