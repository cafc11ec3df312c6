#include <algorithm>
#include <vector>

#include "pruning/budgets.h"
#include "pruning/latency.h"
#include "pruning/solve.h"
#include "tests/support/architectures.h"
#include "tests/support/temporary_folder.h"
#include "tests/support/thrown.h"

#include <doctest/doctest.h>

using namespace laptopdiff;
using pruning::Resource;
using runtime::Json;
using unet::How;

namespace {

// A step takes its MACs at 1e12 a second, a shortcut a microsecond.
pruning::Latency made_up_latency(const unet::Program& base) {
  pruning::Latency latency;
  latency.base = base.config;
  latency.device = "cpu";
  latency.device_name = "a processor";
  latency.dtype = "f32";
  latency.threads = 2;
  latency.repeats = 5;
  latency.geometry = base.geometry;
  for (const unet::Step& step : base.steps) {
    latency.steps.push_back(static_cast<double>(step.macs) * 1e-12);
    if (step.kind == unet::StepKind::resnet && unet::bypassed_layer(base, step))
      latency.shortcuts[step.position] = 1e-6;
  }
  latency.forward = 0.5;
  return latency;
}

pruning::Scores flat_scores(const unet::Program& base) {
  pruning::Scores scores;
  scores.criterion = "output_loss";
  scores.base = base.config;
  scores.units = unet::find_units(base);
  for (std::size_t i = 0; i < scores.units.size(); ++i)
    scores.unit_scores.push_back({1 + static_cast<double>(i * 37 % 101) / 100, 0, ""});
  return scores;
}

unet::Program without(const unet::Program& base, const std::string& layer) {
  unet::Spec spec;
  spec.base = base.config;
  spec.removed = {{layer, How::bypass}};
  return unet::prune(base, spec);
}

}  // namespace

TEST_CASE("what a unit frees is what its map says") {
  const unet::Program base = unet::build_base(unet::parse_config(test::sdxl(), "sdxl"));
  const pruning::CostModel costs(base);
  for (const unet::Unit& unit : unet::find_units(base)) {
    const auto freed = costs.freed({{unit.layer, How::bypass}}, unet::Shell::drop, {Resource::params, Resource::macs});
    CHECK(freed[0] == static_cast<double>(unit.params));
    CHECK(freed[1] == static_cast<double>(unit.macs));
  }
}

TEST_CASE("activations are counted tensor by tensor") {
  const unet::Program base = unet::build_base(unet::parse_config(test::sd15(), "sd15"));
  const pruning::CostModel costs(base);
  const auto freed = [&](const char* layer) {
    return costs.freed({{layer, How::bypass}}, unet::Shell::drop, {Resource::activations}).front();
  };
  const double area = 64 * 64, tokens = 77;
  // 320 to 320 channels: input, norm and activation of both halves.
  CHECK(freed("down_blocks.0.resnets.0") == 4 * 6 * 320 * area);
  // 640 (with its skip) to 320: the shortcut that stays reads the input.
  CHECK(freed("up_blocks.3.resnets.2") == 4 * ((3 * 640 + 3 * 320) - 640) * area);
  // Self-attention 6, cross-attention 4 and its text, feed-forward 18, shell 2 + 1.
  CHECK(freed("down_blocks.0.attentions.0.transformer_blocks.0") == 4 * 320 * ((6 + 4 + 18 + 3) * area + 2 * tokens));
}

TEST_CASE("budgets are shares, amounts with or without a unit, or presets") {
  const unet::Program base = unet::build_base(unet::parse_config(test::sd15(), "sd15"));
  const pruning::CostModel costs(base, made_up_latency(base));
  const auto kept = [&](const char* text) { return pruning::parse_budgets(text, costs).at(0).kept; };
  CHECK(kept("params=0.5") == doctest::Approx(429'760'482));
  CHECK(kept("params=430M") == 430e6);
  CHECK(kept("params=430000K") == 430e6);
  CHECK(kept("params=430000k") == 430e6);
  CHECK(kept("params=0.43B") == 430e6);
  CHECK(kept("macs=0.3T") == 300e9);
  CHECK(kept("activations=0.001TiB") == 0.001 * 0x1p40);
  CHECK(kept("params=1") == costs.total(Resource::params));
  CHECK(kept("macs=0.25") == doctest::Approx(0.25 * static_cast<double>(base.macs())));
  CHECK(kept("latency=250ms") == 0.25);
  CHECK(kept("latency=0.5") == doctest::Approx(0.5 * static_cast<double>(base.macs()) * 1e-12));
  CHECK(kept("latency=0.2s") == 0.2);
  CHECK(kept("activations=1.5GiB") == 1.5 * 0x1p30);
  CHECK(kept("activations=@bk-sdm-tiny") < 0.7 * costs.total(Resource::activations));
  CHECK(pruning::parse_budgets("params=430000000,macs=0.6,latency=0.7", costs).size() == 3);
  for (const char* bad :
       {"", "params", "param=0.5", "params=half", "params=0.5,params=0.4", "params=-1", "params=@bk-sdm-huge",
        "params=0.5x", "latency=3GiB", "params=nan", "params=1.5", "params=1.5KiB", "latency=1.5"}) {
    CHECK(test::thrown_by([&] { pruning::parse_budgets(bad, costs); }).code == runtime::ExitCode::usage);
  }
  CHECK(
      test::thrown_by([&] { pruning::parse_budgets("memory=0.5", costs); }).says("params, macs, latency, activations"));
  CHECK(test::thrown_by([&] { pruning::parse_budgets("latency=3GiB", costs); }).says("units: s, ms"));
  CHECK(test::thrown_by([&] { pruning::parse_budgets("params=1x", costs); }).says("units: K, k, M, G, B, T"));
  CHECK(test::thrown_by([&] { pruning::parse_budgets("activations=1G", costs); }).says("units: KiB, MiB, GiB, TiB"));
  CHECK(test::thrown_by([&] {
          pruning::parse_budgets("params=1.5", costs);
        }).says("--budget params=1.5: a share is at most 1, and an amount of params a whole number"));
  CHECK(test::thrown_by([&] {
          pruning::parse_budgets("latency=1.5", costs);
        }).says("a whole number or one with a unit (s, ms)"));
  CHECK(test::thrown_by([&] { pruning::parse_budgets("latency=0.5", base); }).says("laptopdiff bench layers"));
}

TEST_CASE("several budgets are met together, in the program's own amounts") {
  const unet::Program base = unet::build_base(unet::parse_config(test::sd15(), "sd15"), {96, 64, 154});
  const pruning::CostModel costs(base, made_up_latency(base));
  const pruning::Scores scores = flat_scores(base);
  const auto budgets = pruning::parse_budgets("params=0.6,macs=0.7,latency=0.65,activations=0.6", costs);
  for (const char* solver : {"knapsack", "greedy"}) {
    const auto solution = pruning::solve_by_name(solver, pruning::make_problem(scores, costs, budgets));
    unet::Spec spec;
    spec.base = base.config;
    spec.removed = pruning::removals_of(scores, solution.removed);
    const unet::Program pruned = unet::prune(base, spec);
    for (const auto& budget : budgets) CHECK(costs.amount(pruned, budget.resource) <= budget.kept * (1 + 1e-9));
  }
}

TEST_CASE("an impossible budget of any resource says the least share that can be kept, and that share works") {
  const unet::Program base = unet::build_base(unet::parse_config(test::sd15(), "sd15"));
  const pruning::CostModel costs(base, made_up_latency(base));
  const pruning::Scores scores = flat_scores(base);
  for (const std::string& resource : pruning::resource_names()) {
    const auto solve = [&](const std::string& budget) {
      return pruning::solve_by_name("knapsack",
                                    pruning::make_problem(scores, costs, pruning::parse_budgets(budget, costs)));
    };
    const auto thrown = test::thrown_by([&] { solve(resource + "=0"); });
    CHECK(thrown.code == runtime::ExitCode::usage);
    const std::string before = "the least share that can be kept is ";
    REQUIRE(thrown.says(before));
    const std::string nearest = thrown.message.substr(thrown.message.find(before) + before.size());
    CHECK(nearest.rfind(resource + "=0.", 0) == 0);
    CHECK_NOTHROW(solve(nearest));
  }
}

TEST_CASE("times survive their file") {
  const test::TemporaryFolder folder;
  const unet::Program base = unet::build_base(unet::parse_config(test::sdxl(), "sdxl"), {32, 32, 77});
  const pruning::Latency latency = made_up_latency(base);
  const Json json = pruning::latency_json(latency);
  runtime::write_json(folder / "latency.json", json);
  CHECK(pruning::latency_json(pruning::read_latency(folder / "latency.json")) == json);
  CHECK(json["saved"]["units"].size() == 87);
  CHECK(json["saved"]["shells"].size() == 11);
  // A ResNet that changes its channels leaves a shortcut, which takes its own time.
  const std::string layer = "up_blocks.0.resnets.0";
  const pruning::CostModel costs(base, latency);
  double of_layer = 0;
  for (const unet::Step& step : base.steps) {
    if (step.path == layer) of_layer += latency.steps[static_cast<std::size_t>(step.position)];
  }
  CHECK(costs.total(Resource::latency) - costs.amount(without(base, layer), Resource::latency) ==
        doctest::Approx(of_layer - 1e-6));
}

TEST_CASE("a step whose repeats differ much is known, where it weighs") {
  const test::TemporaryFolder folder;
  const unet::Program base = unet::build_base(unet::parse_config(test::sd15(), "sd15"));
  pruning::Latency latency = made_up_latency(base);
  CHECK(pruning::unsteady_steps(latency).empty());  // a file that does not say
  latency.least = latency.steps;
  CHECK(pruning::unsteady_steps(latency).empty());
  const auto largest = std::max_element(latency.steps.begin(), latency.steps.end()) - latency.steps.begin();
  for (double& least : latency.least) {
    if (least < 1e-4 * latency.steps[static_cast<std::size_t>(largest)]) least = 0;  // no matter how uneven
  }
  latency.least[static_cast<std::size_t>(largest)] *= 0.4;
  CHECK(pruning::unsteady_steps(latency) == std::vector<int>{static_cast<int>(largest)});
  const Json json = pruning::latency_json(latency);
  runtime::write_json(folder / "latency.json", json);
  CHECK(pruning::latency_json(pruning::read_latency(folder / "latency.json")) == json);
}

TEST_CASE("damaged times say where") {
  const test::TemporaryFolder folder;
  const unet::Program base = unet::build_base(unet::parse_config(test::sd15(), "sd15"));
  const Json good = pruning::latency_json(made_up_latency(base));
  const auto failure = [&](const Json& json) {
    runtime::write_json(folder / "latency.json", json);
    return test::thrown_by([&] { pruning::read_latency(folder / "latency.json"); });
  };
  Json json = good;
  SUBCASE("another format") {
    json["format"] = "laptopdiff.scores/1";
    CHECK(failure(json).says("laptopdiff.latency/1"));
  }
  SUBCASE("a step is missing") {
    json["steps"].erase(4);
    CHECK(failure(json).says("`steps` must list the"));
  }
  SUBCASE("steps out of order") {
    std::swap(json["steps"][3], json["steps"][4]);
    CHECK(failure(json).says("steps[3]: is `"));
  }
  SUBCASE("a step without its time") {
    json["steps"][3].erase("seconds");
    CHECK(failure(json).says("steps[3]: `seconds` is missing"));
  }
  SUBCASE("less than no time") {
    json["steps"][3]["seconds"] = -1;
    CHECK(failure(json).says("steps[3].seconds: is -1 seconds, expected 0 to"));
  }
  SUBCASE("endless time") {
    json["steps"][3]["seconds"] = 1e308;
    CHECK(failure(json).says("steps[3].seconds: is 1e+308 seconds"));
  }
  SUBCASE("no time at all") {
    for (Json& step : json["steps"]) step["seconds"] = 0;
    const auto thrown = failure(json);
    CHECK(thrown.code == runtime::ExitCode::bad_input);
    CHECK(thrown.says("`seconds` of all `steps` are 0"));
  }
  SUBCASE("a fastest repeat that is slower than the middle one, or of one step alone") {
    json["steps"][3]["least"] = json["steps"][3]["seconds"].get<double>() + 1;
    CHECK(failure(json).says("steps[3]: `least` is"));
    json["steps"][3]["least"] = 0;
    CHECK(failure(json).says("`least` must be given for every one of `steps`"));
  }
  SUBCASE("a forward of less than no time") {
    json["forward"] = -1;
    CHECK(failure(json).says("forward: is -1 seconds"));
  }
  SUBCASE("counts that cannot be") {
    for (const char* name : {"threads", "batch", "repeats", "tokens"}) {
      json = good;
      json[name] = -3;
      CHECK(failure(json).says(std::string("`") + name + "` is -3, expected at least"));
    }
  }
  SUBCASE("a shortcut without its time") {
    for (Json& step : json["steps"]) step.erase("shortcut");
    CHECK(failure(json).says("`shortcut` is missing"));
  }
  SUBCASE("savings of other times, of other layers, or none") {
    json["saved"]["units"][0]["seconds"] = 1;
    CHECK(failure(json).says("`saved` is not what its steps give"));
    json = good;
    json["saved"]["units"][0]["layer"] = "conv_in";
    CHECK(failure(json).says("`saved` is not what its steps give"));
    json["saved"] = {{"units", 3}};
    CHECK(failure(json).says("`saved` is not what its steps give"));
  }
  SUBCASE("savings that another machine rounds otherwise are fine, and so are none") {
    Json& seconds = json["saved"]["units"][0]["seconds"];
    seconds = seconds.get<double>() * (1 + 1e-15);
    runtime::write_json(folder / "latency.json", json);
    CHECK_NOTHROW(pruning::read_latency(folder / "latency.json"));
    json.erase("saved");
    runtime::write_json(folder / "latency.json", json);
    CHECK_NOTHROW(pruning::read_latency(folder / "latency.json"));
  }
  SUBCASE("no size") {
    json["latent"] = {0, 64};
    CHECK(failure(json).says("`latent` must be"));
  }
  SUBCASE("no base") {
    json.erase("base");
    CHECK(failure(json).says("`base` is missing"));
  }
  SUBCASE("unknown key") {
    json["devise"] = "x";
    CHECK(failure(json).says("did you mean `device`"));
  }
  SUBCASE("another base") {
    runtime::write_json(folder / "latency.json", good);
    const unet::Program other = unet::build_base(unet::parse_config(test::sdxl(), "sdxl"));
    const auto thrown =
        test::thrown_by([&] { pruning::CostModel(other, pruning::read_latency(folder / "latency.json")); });
    CHECK(thrown.code == runtime::ExitCode::bad_input);
    CHECK(thrown.says("times of another base"));
  }
}
