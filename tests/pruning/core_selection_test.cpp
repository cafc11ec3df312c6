#include "pruning/budgets.h"
#include "pruning/presets.h"
#include "pruning/scores.h"
#include "pruning/solve.h"
#include "tests/support/architectures.h"
#include "tests/support/temporary_folder.h"
#include "tests/support/thrown.h"
#include "unet/native_config.h"
#include "unet/recover_spec.h"

#include <doctest/doctest.h>

using namespace laptopdiff;
using runtime::Json;

namespace {

unet::Config sd15() { return unet::parse_config(test::sd15(), "sd15"); }
unet::Config sdxl() { return unet::parse_config(test::sdxl(), "sdxl"); }

// Scores without a measurement behind them: a fixed pseudo-random value a unit.
pruning::Scores made_up_scores(const unet::Config& config) {
  pruning::Scores scores;
  scores.criterion = "output_loss";
  scores.base = config;
  scores.samples = 4;
  const unet::Program base = unet::build_base(config);
  scores.units = unet::find_units(base);
  for (std::size_t i = 0; i < scores.units.size(); ++i)
    scores.unit_scores.push_back({0.01 + static_cast<double>(i * 37 % 101) / 100, 0.001, ""});
  for (const unet::ShellGroup& group : unet::find_shells(base, scores.units)) {
    if (group.units.size() < 2) continue;
    unet::Spec spec;
    spec.base = config;
    spec.removed = {{group.path, unet::How::bypass}};
    const unet::Program without = unet::prune(base, spec);
    scores.shells.push_back(
        {group.path, group.units, base.params() - without.params(), base.macs() - without.macs(), {1.5, 0.01, ""}});
  }
  return scores;
}

}  // namespace

TEST_CASE("scores survive their file") {
  const test::TemporaryFolder folder;
  pruning::Scores scores = made_up_scores(sdxl());
  scores.unit_scores[5] = {std::nullopt, 0, "the output without this unit is not finite"};
  runtime::write_json(folder / "scores.json", pruning::scores_json(scores));
  const pruning::Scores again = pruning::read_scores(folder / "scores.json");
  CHECK(pruning::scores_json(again) == pruning::scores_json(scores));
  CHECK(again.shells.size() == 11);
}

TEST_CASE("a mask meets its budget in the program's own parameters") {
  for (const unet::Config& config : {sd15(), sdxl()}) {
    const unet::Program base = unet::build_base(config);
    const pruning::Scores scores = made_up_scores(config);
    for (const double keep : {0.7, 0.5, 0.3}) {
      const auto problem =
          pruning::make_problem(scores, base, {{pruning::Resource::params, keep * static_cast<double>(base.params())}});
      const auto solution = pruning::solve_by_name("knapsack", problem);
      unet::Spec spec;
      spec.base = config;
      spec.removed = pruning::removals_of(scores, solution.removed);
      const unet::Program pruned = unet::prune(base, spec);
      CHECK(static_cast<double>(pruned.params()) <= keep * static_cast<double>(base.params()));
      CHECK(static_cast<double>(base.params() - pruned.params()) == solution.freed[0]);
      CHECK(solution.proven_optimal);
    }
  }
}

TEST_CASE("a unit without a score is kept, and fixed layers stay fixed") {
  pruning::Scores scores = made_up_scores(sd15());
  scores.unit_scores[8] = {std::nullopt, 0, "not finite"};
  const unet::Program base = unet::build_base(scores.base);
  const auto problem =
      pruning::make_problem(scores, base, {{pruning::Resource::params, 0.4 * static_cast<double>(base.params())}},
                            {"mid_block.resnets.0"}, {"up_blocks.3.resnets.2"});
  for (const char* solver : {"knapsack", "greedy"}) {
    const auto solution = pruning::solve_by_name(solver, problem);
    CHECK(solution.removed[8] == 0);
    CHECK(solution.removed[14] == 0);
    CHECK(solution.removed[36] == 1);
  }
}

TEST_CASE("a shell whose absence has no score keeps the block that matters most") {
  pruning::Scores scores = made_up_scores(sdxl());
  pruning::ShellScore& shell = scores.shells.front();
  shell.score = {std::nullopt, 0, "the output without this unit is not finite"};
  std::vector<std::string> others;
  for (const int unit : shell.units) {
    scores.unit_scores[static_cast<std::size_t>(unit)].value = 1e-9;  // each alone is next to nothing
    if (unit != shell.units.back()) others.push_back(scores.units[static_cast<std::size_t>(unit)].layer);
  }
  const auto last = static_cast<std::size_t>(shell.units.back());
  scores.unit_scores[last].value = 2e-9;
  const unet::Program base = unet::build_base(scores.base);
  const auto problem = pruning::make_problem(
      scores, base, {{pruning::Resource::params, 0.7 * static_cast<double>(base.params())}}, {}, others);
  for (const char* solver : {"knapsack", "greedy"}) CHECK(pruning::solve_by_name(solver, problem).removed[last] == 0);
}

TEST_CASE("random masks meet the budget, differ by seed and repeat by seed") {
  const pruning::Scores scores = made_up_scores(sdxl());
  const unet::Program base = unet::build_base(scores.base);
  const auto problem =
      pruning::make_problem(scores, base, {{pruning::Resource::params, 0.5 * static_cast<double>(base.params())}});
  const auto one = pruning::random_mask(problem, 1), same = pruning::random_mask(problem, 1),
             other = pruning::random_mask(problem, 2);
  CHECK(one.removed == same.removed);
  CHECK(one.removed != other.removed);
  CHECK(pruning::meets(problem, one.removed));
}

TEST_CASE("unknown solvers, layers and presets name the near ones") {
  const pruning::Scores scores = made_up_scores(sd15());
  const unet::Program base = unet::build_base(scores.base);
  const auto problem = pruning::make_problem(scores, base, {{pruning::Resource::params, 1e9}});
  CHECK(test::thrown_by([&] { pruning::solve_by_name("knapsak", problem); }).says("knapsack"));
  CHECK(test::thrown_by([&] { pruning::solve_by_name("gram", problem); }).says("no Gram matrix"));
  CHECK(test::thrown_by([&] {
          pruning::make_problem(scores, base, {}, {"mid_block.resnets.7"});
        }).says("mid_block.resnets.0"));
  CHECK(test::thrown_by([&] { pruning::preset_removals("bk-tiny", base); }).says("bk-sdm-tiny"));
}

TEST_CASE("presets refuse bases they were not made for") {
  unet::Config config = sd15();
  Json raw = config.raw;
  raw["layers_per_block"] = 3;
  const unet::Program base = unet::build_base(unet::parse_config(raw, "config.json"));
  CHECK(test::thrown_by([&] { pruning::preset_removals("bk-sdm-tiny", base); }).says("two layers"));
}

TEST_CASE("presets have the published sizes, a native config, and are recovered from it") {
  struct Case {
    const char* preset;
    Json base;
    std::int64_t params;
  };
  const Case cases[] = {
      {"bk-sdm-base", test::sd15(), 579'384'964},  {"bk-sdm-small", test::sd15(), 482'346'884},
      {"bk-sdm-tiny", test::sd15(), 323'384'964},  {"segmind-small", test::sd15(), 579'384'964},
      {"segmind-tiny", test::sd15(), 323'384'964}, {"koala-1b", test::sdxl(), 1'161'184'324},
      {"koala-700m", test::sdxl(), 782'822'724},   {"ssd-1b", test::sdxl(), 1'331'334'404},
      {"segmind-vega", test::sdxl(), 745'225'604},
  };
  CHECK(std::size(cases) == pruning::preset_names().size());
  for (const Case& c : cases) {
    CAPTURE(c.preset);
    unet::Spec spec;
    spec.base = unet::parse_config(c.base, "config.json");
    const unet::Program base = unet::build_base(spec.base);
    spec.removed = pruning::preset_removals(c.preset, base);
    const unet::Program pruned = unet::prune(base, spec);
    CHECK(pruned.params() == c.params);
    const unet::NativeForm native = unet::native_form(base, pruned);
    CHECK(native.why_not == "");
    CHECK(unet::same_spec(unet::recover_spec(native.config, spec.base), spec));
  }
}

TEST_CASE("presets of SDXL refuse bases without its transformers") {
  const auto refusal = [](const char* preset, const Json& config) {
    const unet::Program base = unet::build_base(unet::parse_config(config, "config.json"));
    const auto thrown = test::thrown_by([&] { pruning::preset_removals(preset, base); });
    CHECK(thrown.code == runtime::ExitCode::usage);
    return thrown.message;
  };
  CHECK(refusal("koala-1b", test::sd15()).find("needs 6 transformer blocks in down_blocks.2.attentions.0, it has 1") !=
        std::string::npos);
  Json config = test::sdxl();
  config["mid_block_type"] = nullptr;
  CHECK(refusal("koala-1b", config).find("needs the stages of SDXL") != std::string::npos);
  config = test::sdxl();
  config["layers_per_block"] = 1;
  CHECK(refusal("ssd-1b", config).find("needs 3 transformers in up_blocks.0, it has 2") != std::string::npos);
  config = test::sdxl();
  config["down_block_types"] = {"DownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"};
  config["up_block_types"] = {"UpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"};
  CHECK(refusal("segmind-vega", config).find("needs transformers in down_blocks.2") != std::string::npos);
}

TEST_CASE("damaged scores say where") {
  const test::TemporaryFolder folder;
  const Json good = pruning::scores_json(made_up_scores(sd15()));
  const auto failure = [&](const Json& json) {
    runtime::write_json(folder / "scores.json", json);
    return test::thrown_by([&] { pruning::read_scores(folder / "scores.json"); });
  };
  Json json = good;
  SUBCASE("a unit is missing") {
    json["units"].erase(3);
    CHECK(failure(json).says("38 units"));
  }
  SUBCASE("units out of order") {
    std::swap(json["units"][0], json["units"][1]);
    CHECK(failure(json).says("units[0]"));
  }
  SUBCASE("another size") {
    json["units"][2]["params"] = 7;
    CHECK(failure(json).says("this base gives"));
  }
  SUBCASE("gram of the wrong size") {
    json["gram"] = {{1.0}};
    CHECK(failure(json).says("38 rows"));
  }
  SUBCASE("unknown key") {
    json["criterium"] = "x";
    CHECK(failure(json).says("did you mean `criterion`"));
  }
  SUBCASE("another format") {
    json["format"] = "laptopdiff.spec/1";
    CHECK(failure(json).says("laptopdiff.scores/1"));
  }
}
