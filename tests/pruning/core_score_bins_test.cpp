#include "pruning/scores.h"
#include "tests/support/architectures.h"
#include "tests/support/temporary_folder.h"
#include "tests/support/thrown.h"

#include <doctest/doctest.h>

using namespace laptopdiff;
using runtime::Json;

namespace {

// Two intervals of the schedule, the second without a sample.
pruning::Scores binned_scores() {
  pruning::Scores scores;
  scores.criterion = "output_loss";
  scores.base = unet::parse_config(test::sd15(), "sd15");
  scores.units = unet::find_units(unet::build_base(scores.base));
  const std::size_t n = scores.units.size();
  scores.unit_scores.assign(n, {0.5, 0.01, ""});
  scores.gram.assign(n, std::vector<std::optional<double>>(n, 0.5));
  scores.samples = 4;
  pruning::ScoreBin first{0, 500, 4, scores.unit_scores, {}, scores.gram};
  first.unit_scores[3] = {std::nullopt, 0, "the output without this unit is not finite"};
  for (std::size_t i = 0; i < n; ++i) first.gram[3][i] = first.gram[i][3] = std::nullopt;
  pruning::ScoreBin second{500, 1000, 0, {}, {}, {}};
  second.unit_scores.assign(n, {std::nullopt, 0, "no calibration sample in this interval"});
  scores.bins = {first, second};
  return scores;
}

test::Thrown refusal(const Json& json) {
  const test::TemporaryFolder folder;
  runtime::write_json(folder / "scores.json", json);
  return test::thrown_by([&] { pruning::read_scores(folder / "scores.json"); });
}

}  // namespace

TEST_CASE("scores of timestep intervals survive their file") {
  const test::TemporaryFolder folder;
  const pruning::Scores scores = binned_scores();
  const Json json = pruning::scores_json(scores);
  CHECK(json["bins"][0]["timesteps"] == Json({0, 500}));
  CHECK(json["bins"][0]["units"][3]["score"].is_null());
  CHECK(json["bins"][0]["gram"][3][5].is_null());
  CHECK(!json["bins"][1].contains("gram"));
  runtime::write_json(folder / "scores.json", json);
  const pruning::Scores again = pruning::read_scores(folder / "scores.json");
  REQUIRE(again.bins.size() == 2);
  CHECK(again.bins[1].unit_scores[0].why_null == "no calibration sample in this interval");
  CHECK(pruning::scores_json(again) == json);
}

TEST_CASE("a wrong interval in scores.json is refused with its place") {
  Json json = pruning::scores_json(binned_scores());
  const auto says = [&](const std::string& text) {
    const test::Thrown thrown = refusal(json);
    CAPTURE(thrown.message);
    CHECK(thrown.code == runtime::ExitCode::bad_input);
    CHECK(thrown.says(text));
  };
  SUBCASE("no interval at all") {
    json["bins"] = Json::array();
    says("`bins` must be a list of at least one interval");
  }
  SUBCASE("backwards") {
    json["bins"][0]["timesteps"] = {500, 0};
    says("bins[0]: `timesteps` must be [first, last)");
  }
  SUBCASE("a gap") {
    json["bins"][1]["timesteps"] = {600, 1000};
    says("bins[1] begins at timestep 600, the one before ends at 500");
  }
  SUBCASE("negative samples") {
    json["bins"][0]["samples"] = -1;
    says("bins[0]: `samples` is -1");
  }
  SUBCASE("more samples than there are") {
    json["bins"][0]["samples"] = 1'000'000'000'000'000;
    says("bins[0]: `samples` is 1000000000000000, but only 4 of the 4 are left for it");
  }
  SUBCASE("a score that its Gram matrix contradicts") {
    json["bins"][0]["units"][2]["score"] = 3;
    says("bins[0]: gram[2][2] (down_blocks.0.resnets.1) is 0.5, but its `score` is 3");
  }
  SUBCASE("too few units") {
    json["bins"][0]["units"].erase(0);
    says("bins[0]: `units` must have 38 entries");
  }
  SUBCASE("a Gram matrix of another size") {
    json["bins"][0]["gram"].erase(0);
    says("bins[0]: `gram` must have 38 rows");
  }
  SUBCASE("no Gram matrix where the scores have one") {
    json["bins"][0].erase("gram");
    says("bins[0]: has 4 samples, but no `gram`");
  }
  SUBCASE("a Gram matrix where the scores have none") {
    json.erase("gram");
    says("bins[0]: has a `gram`, but the scores have none");
  }
  SUBCASE("an unknown key of a unit") {
    json["bins"][0]["units"][2]["scroe"] = 1;
    says("bins[0]: units[2] (down_blocks.0.resnets.1): unknown key `scroe`");
  }
}
