#include "diffusion/scheduler.h"

#include <torch/types.h>

#include "diffusion/timestep_grid.h"
#include "runtime/error.h"
#include "tests/support/thrown.h"

#include <doctest/doctest.h>

namespace laptopdiff::diffusion {
namespace {

using laptopdiff::test::thrown_by;
using runtime::ExitCode;
using runtime::Json;

// Stable Diffusion's schedule; every other option is the class default or given by the test.
Json sd_config(const Json& more = Json::object()) {
  Json config = {{"beta_start", 0.00085}, {"beta_end", 0.012}, {"beta_schedule", "scaled_linear"}};
  config.update(more);
  return config;
}

std::unique_ptr<Scheduler> make(const char* kind, const Json& more = Json::object()) {
  return Scheduler::make(sd_config(more), parse_scheduler_kind(kind));
}

std::vector<double> grid(const char* kind, std::int64_t steps, const Json& more) {
  const auto scheduler = make(kind, more);
  scheduler->set_timesteps(steps);
  return scheduler->timesteps();
}

std::vector<double> first(std::vector<double> values, std::size_t count) {
  values.resize(count);
  return values;
}

TEST_CASE("timestep grids of the published configs") {
  using Grid = std::vector<double>;
  const Json leading = {{"timestep_spacing", "leading"}, {"steps_offset", 1}};
  const Json trailing = {{"timestep_spacing", "trailing"}}, spaced = {{"timestep_spacing", "linspace"}};
  Json plms = leading;
  plms["skip_prk_steps"] = true;
  CHECK(grid("ddim", 10, leading) == Grid{901, 801, 701, 601, 501, 401, 301, 201, 101, 1});
  CHECK(grid("ddim", 20, leading).front() == 951);
  CHECK(first(grid("ddim", 25, leading), 2) == Grid{961, 921});
  CHECK(grid("ddim", 50, leading).front() == 981);
  CHECK(first(grid("ddim", 25, trailing), 2) == Grid{999, 959});
  CHECK(grid("ddim", 25, trailing).back() == 39);
  CHECK(first(grid("ddim", 25, spaced), 4) == Grid{999, 957, 916, 874});
  CHECK(grid("ddim", 25, spaced).back() == 0);
  CHECK(first(grid("pndm", 25, plms), 4) == Grid{961, 921, 921, 881});
  CHECK(grid("pndm", 25, plms).size() == 26);
  CHECK(first(grid("pndm", 50, plms), 4) == Grid{981, 961, 961, 941});
  CHECK(grid("pndm", 50, plms).size() == 51);
  CHECK(first(grid("dpm++2m", 20, spaced), 3) == Grid{999, 949, 899});
  CHECK(grid("dpm++2m", 25, spaced).back() == 40);
  CHECK(first(grid("dpm++2m", 25, leading), 3) == Grid{951, 913, 875});
  CHECK(grid("dpm++2m", 20, trailing).back() == 49);
  CHECK(first(grid("euler", 25, leading), 2) == Grid{961, 921});
  CHECK(first(grid("euler", 25, spaced), 3) == Grid{999, 957.375, 915.75});
}

TEST_CASE("euler starts from the noise level of its first timestep") {
  const auto sigma = [](const char* spacing, std::int64_t offset) {
    const auto scheduler = make("euler", {{"timestep_spacing", spacing}, {"steps_offset", offset}});
    scheduler->set_timesteps(25);
    return scheduler->init_noise_sigma();
  };
  CHECK(sigma("leading", 1) == doctest::Approx(11.7187948).epsilon(1e-7));
  CHECK(sigma("linspace", 0) == doctest::Approx(14.6146469).epsilon(1e-7));
}

// m = 0.3 input + t 1e-5 from x = linspace(-1, 1, 8) sigma.
at::Tensor toy_run(Scheduler& scheduler, std::int64_t steps) {
  scheduler.set_timesteps(steps);
  at::Tensor x = at::linspace(-1, 1, 8) * scheduler.init_noise_sigma();
  for (std::int64_t i = 0; i < static_cast<std::int64_t>(scheduler.timesteps().size()); ++i) {
    const double t = scheduler.timesteps()[static_cast<std::size_t>(i)];
    x = scheduler.step(0.3 * scheduler.scale_model_input(x, i) + t * 1e-5, i, x);
  }
  return x;
}

TEST_CASE("samplers on a toy network give the reference's numbers") {
  struct Row {
    const char* kind;
    std::int64_t steps;
    Json options;
    std::vector<double> expected;
  };
  const Json plain = {
      {"clip_sample", false}, {"set_alpha_to_one", false}, {"steps_offset", 1}, {"skip_prk_steps", true}};
  Json leading = plain;
  leading["timestep_spacing"] = "leading";
  const Row rows[] = {
      {"ddim", 10, plain, {-3.953111, -2.833789, -1.714466, -.595144, .524178, 1.6435, 2.762822, 3.882144}},
      {"pndm", 10, plain, {-3.651124, -2.616326, -1.581526, -.546727, .488072, 1.522871, 2.55767, 3.592469}},
      {"dpm++2m", 10, plain, {-5.472992, -3.925078, -2.377163, -.829248, .718666, 2.266582, 3.814496, 5.362412}},
      {"dpm++2m",
       20,
       {{"use_karras_sigmas", true}},
       {-5.345529, -3.833237, -2.320946, -.808654, .703637, 2.21593, 3.72822, 5.240514}},
      {"euler", 10, leading, {-3.92009, -2.810117, -1.700145, -.590173, .519799, 1.629771, 2.739743, 3.849716}}};
  for (const Row& row : rows) {
    CAPTURE(row.kind);
    CAPTURE(row.steps);
    const auto scheduler = make(row.kind, row.options);
    const at::Tensor x = toy_run(*scheduler, row.steps);
    for (std::size_t i = 0; i < 8; ++i) {
      CHECK(x[static_cast<std::int64_t>(i)].item<double>() == doctest::Approx(row.expected[i]).epsilon(3e-6));
    }
    CHECK(at::equal(toy_run(*scheduler, row.steps), x));  // a second run has forgotten the first
  }
}

TEST_CASE("a perfect network leads every deterministic sampler back to the clean sample") {
  const at::Tensor x0 = at::linspace(-0.9, 0.9, 6);
  for (const char* kind : {"ddim", "pndm", "dpm++2m", "euler"}) {
    CAPTURE(kind);
    const auto scheduler =
        make(kind, {{"skip_prk_steps", true}, {"set_alpha_to_one", true}, {"timestep_spacing", "trailing"}});
    scheduler->set_timesteps(20);
    at::Tensor x = at::linspace(1, -1, 6) * scheduler->init_noise_sigma();
    for (std::int64_t i = 0; i < static_cast<std::int64_t>(scheduler->timesteps().size()); ++i) {
      const auto t = static_cast<std::int64_t>(scheduler->timesteps()[static_cast<std::size_t>(i)]);
      const at::Tensor alpha = scheduler->schedule().alphas_cumprod[t];
      const at::Tensor input = scheduler->scale_model_input(x, i);
      x = scheduler->step((input - alpha.sqrt() * x0) / (1 - alpha).sqrt(), i, x);
    }
    CHECK(at::allclose(x, x0, 1e-3, 1e-3));
  }
}

TEST_CASE("noise goes into ddpm and into ddim with eta, and nowhere at the end") {
  int asked = 0;
  const auto noise = [&] {
    ++asked;
    return at::ones({4});
  };
  const at::Tensor x = at::zeros({4}), m = at::zeros({4});
  SUBCASE("ddpm") {
    const auto scheduler = make("ddpm");
    scheduler->set_timesteps(10);
    for (std::int64_t i = 0; i < 10; ++i) scheduler->step(m, i, x, {0, noise});
    CHECK(asked == 9);
  }
  SUBCASE("ddim") {
    const auto scheduler = make("ddim");
    scheduler->set_timesteps(10);
    scheduler->step(m, 0, x, {0, noise});
    CHECK(asked == 0);
    const at::Tensor moved = scheduler->step(m, 0, x, {1, noise});
    CHECK(asked == 1);
    CHECK(moved.min().item<double>() > 0);
  }
}

TEST_CASE("names of samplers") {
  for (const char* name : {"ddim", "ddpm", "pndm", "dpm++2m", "euler"}) {
    CHECK(scheduler_kind_name(parse_scheduler_kind(name)) == name);
  }
  CHECK(scheduler_kind_of_class("EulerDiscreteScheduler", "x") == SchedulerKind::euler);
  const auto thrown = thrown_by([] { parse_scheduler_kind("dpm++"); });
  CHECK(thrown.code == ExitCode::usage);
  CHECK(thrown.says("`dpm++2m`"));
  const auto other = thrown_by([] { Scheduler::make({{"_class_name", "UniPCMultistepScheduler"}}); });
  CHECK(other.code == ExitCode::bad_input);
  CHECK(other.says("UniPCMultistepScheduler is not supported"));
  CHECK(other.says("--scheduler"));
  CHECK(thrown_by([] { Scheduler::make(Json::object()); }).says("`_class_name`"));
  CHECK(thrown_by([] { Scheduler::make(Json::array()); }).says("expected an object"));
}

TEST_CASE("options that would change the maths are refused by name") {
  struct Row {
    const char* kind;
    Json options;
    const char* expected;
  };
  const Row rows[] = {
      {"ddim", {{"thresholding", true}}, "`thresholding` is not supported"},
      {"ddpm", {{"thresholding", true}}, "`thresholding` is not supported"},
      {"ddpm", {{"variance_type", "learned_range"}}, "`variance_type` \"learned_range\" is not supported"},
      {"ddpm", {{"variance_type", "fixed_large_log"}}, "`variance_type` \"fixed_large_log\" is not supported"},
      {"ddim", {{"timestep_spacing", "quad"}}, "`timestep_spacing` \"quad\" is not supported"},
      {"ddim", {{"steps_offset", -1}}, "`steps_offset` is -1"},
      {"pndm", {{"prediction_type", "sample"}}, "`prediction_type` \"sample\" is not supported by pndm"},
      {"dpm++2m", {{"thresholding", true}}, "`thresholding` is not supported"},
      {"dpm++2m", {{"algorithm_type", "sde-dpmsolver++"}}, "`algorithm_type` \"sde-dpmsolver++\" is not supported"},
      {"dpm++2m", {{"solver_type", "bh3"}}, "`solver_type` \"bh3\" is not supported"},
      {"dpm++2m", {{"solver_order", 3}}, "`solver_order` 3 is not supported"},
      {"dpm++2m", {{"use_lu_lambdas", true}}, "`use_lu_lambdas` is not supported"},
      {"dpm++2m", {{"use_flow_sigmas", true}}, "`use_flow_sigmas` is not supported"},
      {"dpm++2m", {{"use_beta_sigmas", true}}, "`use_beta_sigmas` is not supported"},
      {"dpm++2m", {{"use_dynamic_shifting", true}}, "`use_dynamic_shifting` is not supported"},
      {"dpm++2m", {{"use_karras_sigmas", true}, {"use_exponential_sigmas", true}}, "exclude each other"},
      {"dpm++2m", {{"final_sigmas_type", "one"}}, "`final_sigmas_type` \"one\" is not supported"},
      {"euler", {{"use_beta_sigmas", true}}, "`use_beta_sigmas` is not supported"},
      {"euler", {{"timestep_type", "continuous"}}, "`timestep_type` \"continuous\" is not supported"},
      {"euler", {{"interpolation_type", "cubic"}}, "`interpolation_type` \"cubic\" is not supported"},
  };
  for (const Row& row : rows) {
    CAPTURE(row.expected);
    const auto thrown = thrown_by([&] { make(row.kind, row.options); });
    CHECK(thrown.code == ExitCode::bad_input);
    CHECK(thrown.says(row.expected));
  }
}

TEST_CASE("an option of another class is no mistake") {
  CHECK(make("pndm", {{"thresholding", true}, {"use_karras_sigmas", true}, {"clip_sample", true}}) != nullptr);
  CHECK(make("ddim", {{"skip_prk_steps", true}, {"algorithm_type", "sde-dpmsolver++"}, {"_note", 3}}) != nullptr);
}

TEST_CASE("step counts that do not fit the schedule are refused") {
  const auto refused = [](const char* kind, std::int64_t steps, const Json& options, const char* expected) {
    const auto scheduler = make(kind, options);
    const auto thrown = thrown_by([&] { scheduler->set_timesteps(steps); });
    CAPTURE(thrown.message);
    CHECK(thrown.code == ExitCode::usage);
    CHECK(thrown.says(expected));
  };
  refused("ddim", 0, Json::object(), "steps is 0, expected 1 to 1000");
  refused("ddim", 1001, Json::object(), "steps is 1001, expected 1 to 1000");
  refused("ddim", 1000, {{"steps_offset", 1}}, "would visit timestep 1000");
  refused("pndm", 3, Json::object(), "needs at least 4 steps");
  refused("dpm++2m", 1000, {{"timestep_spacing", "leading"}}, "takes at most 999 steps");
}

TEST_CASE("grids round half to even, as numpy does") {
  CHECK(linspace_grid(5, 3) == std::vector<double>{5, 2, 0});
  CHECK(linspace(0, 1, 1) == std::vector<double>{0});
  CHECK(trailing_grid(10, 4, 10) == std::vector<double>{9, 7, 4, 1});
  CHECK(leading_grid(10, 4, 1) == std::vector<double>{7, 5, 3, 1});
}

}  // namespace
}  // namespace laptopdiff::diffusion
