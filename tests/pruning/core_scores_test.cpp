#include "pruning/scores.h"
#include "tests/support/architectures.h"
#include "tests/support/temporary_folder.h"
#include "tests/support/thrown.h"

#include <doctest/doctest.h>

using namespace laptopdiff;
using runtime::Json;

namespace {

// Of SDXL, whose Transformer2DModels hold several blocks: every score 1, no two differences alike.
Json sound_scores() {
  pruning::Scores scores;
  scores.criterion = "output_loss";
  scores.base = unet::parse_config(test::sdxl(), "sdxl");
  const unet::Program base = unet::build_base(scores.base);
  scores.units = unet::find_units(base);
  scores.unit_scores.assign(scores.units.size(), {1.0, 0.1, ""});
  for (const unet::ShellGroup& group : unet::find_shells(base, scores.units)) {
    unet::Spec spec;
    spec.base = scores.base;
    spec.removed = {{group.path, unet::How::bypass}};
    const unet::Program without = unet::prune(base, spec);
    scores.shells.push_back(
        {group.path, group.units, base.params() - without.params(), base.macs() - without.macs(), {1.0, 0.1, ""}});
  }
  const std::size_t n = scores.units.size() + scores.shells.size();
  scores.gram.assign(n, std::vector<std::optional<double>>(n, 0.25));
  for (std::size_t i = 0; i < n; ++i) scores.gram[i][i] = 1;
  scores.samples = 4;
  return pruning::scores_json(scores);
}

Json& gram(Json& json, std::size_t i, std::size_t j) { return json["gram"][i][j]; }

pruning::Scores read(const Json& json) {
  const test::TemporaryFolder folder;
  runtime::write_json(folder / "scores.json", json);
  return pruning::read_scores(folder / "scores.json");
}

}  // namespace

TEST_CASE("scores that a measurement can have given are read") {
  Json json = sound_scores();
  CHECK(pruning::scores_json(read(json)) == json);
  SUBCASE("a unit without a score has no row in the Gram matrix") {
    json["units"][2]["score"] = json["units"][2]["stderr"] = Json();
    for (std::size_t i = 0; i < json["gram"].size(); ++i) gram(json, 2, i) = gram(json, i, 2) = Json();
  }
  SUBCASE("differences taken in bf16") { gram(json, 4, 4) = 1.01; }
  SUBCASE("another compiler's last bits") { gram(json, 4, 5) = 0.25 * (1 + 1e-15); }
  SUBCASE("a criterion whose scores are no mean of squares") {
    json["criterion"] = "ours";
    json["units"][0]["score"] = -7;
  }
  SUBCASE("without a Gram matrix") { json.erase("gram"); }
  CHECK_NOTHROW(read(json));
}

TEST_CASE("numbers that no measurement gives are refused with their place") {
  Json json = sound_scores();
  const auto says = [&](const std::string& text) {
    const test::Thrown thrown = test::thrown_by([&] { read(json); });
    CAPTURE(thrown.message);
    CHECK(thrown.code == runtime::ExitCode::bad_input);
    CHECK(thrown.says(text));
  };
  SUBCASE("a score whose products overflow") {
    json["units"][2]["score"] = 1e308;
    says("scores.json: units[2] (down_blocks.1.resnets.0): `score` is 1e+308, expected at most 1e+100");
  }
  SUBCASE("a shell's") {
    json["shells"][0]["score"] = -1e300;
    says("shells[0] (down_blocks.1.attentions.0): `score` is -1e+300");
  }
  SUBCASE("a standard error below 0") {
    json["units"][1]["stderr"] = -1;
    says("units[1] (down_blocks.0.resnets.1): `stderr` is -1, expected 0 or more");
  }
  SUBCASE("an endless standard error") {
    json["units"][1]["stderr"] = 1e307;
    says("`stderr` is 1e+307");
  }
  SUBCASE("samples below 0") {
    json["samples"] = -4;
    says("`samples` is -4, expected at least 0");
  }
  SUBCASE("a diagonal below 0") {
    gram(json, 3, 3) = -1;
    says("gram[3][3] (down_blocks.1.attentions.0.transformer_blocks.0) is -1, expected 0 or more");
  }
  SUBCASE("a diagonal beyond all bounds") {
    json["criterion"] = "ours";
    gram(json, 3, 3) = 1e308;
    says("gram[3][3] (down_blocks.1.attentions.0.transformer_blocks.0) is 1e+308, expected at most");
  }
  SUBCASE("a diagonal that is not the score") {
    gram(json, 3, 3) = 2;
    says(
        "gram[3][3] (down_blocks.1.attentions.0.transformer_blocks.0) is 2, but its `score` is 1: by the criterion "
        "`output_loss` they are");
  }
  SUBCASE("no value where there is a score") {
    gram(json, 3, 3) = Json();
    says("gram[3][3] (down_blocks.1.attentions.0.transformer_blocks.0) is null, but its `score` is 1");
  }
  SUBCASE("a value where there is no score") {
    json["units"][3]["score"] = Json();
    says("gram[3][3] (down_blocks.1.attentions.0.transformer_blocks.0) is 1, but its `score` is null");
  }
  SUBCASE("no value between two that have scores") {
    gram(json, 3, 5) = Json();
    says("is null, but both have a score");
  }
  SUBCASE("a value beside one that has no score") {
    json["units"][3]["score"] = gram(json, 3, 3) = Json();
    says("is 0.25, but one of the two has no score");
  }
  SUBCASE("not symmetric") {
    gram(json, 3, 5) = 0.5;
    says("gram[3][5]");
    says("the matrix must be symmetric");
  }
  SUBCASE("more in common than there is") {
    gram(json, 3, 5) = gram(json, 5, 3) = -2;
    says("is -2, expected at most 1 in magnitude, as the diagonal says");
  }
  SUBCASE("another size of a shell") {
    json["shells"][0]["params"] = 7;
    says("shells[0] (down_blocks.1.attentions.0): `params` is 7, this base gives");
  }
  SUBCASE("another work of a shell") {
    json["shells"][0]["macs"] = 7;
    says("shells[0] (down_blocks.1.attentions.0): `macs` is 7, this base gives");
  }
  SUBCASE("a shell that the base has not") {
    json["shells"][0]["path"] = "mid_block";
    says("shells[0] (mid_block): is no Transformer2DModel of the base");
  }
  SUBCASE("a shell of other blocks") {
    json["shells"][0]["units"].erase(0);
    says("shells[0] (down_blocks.1.attentions.0): `units` are not the blocks");
  }
}
