#include <algorithm>
#include <set>

#include "tests/support/architectures.h"
#include "tests/support/thrown.h"
#include "unet/spec.h"

#include <doctest/doctest.h>

using namespace laptopdiff;
using runtime::Json;
using test::sd15;
using test::sdxl;
using unet::How;
using unet::Removal;
using unet::Spec;

namespace {

Spec make_spec(const Json& config, std::vector<Removal> removed) {
  Spec spec;
  spec.base = unet::parse_config(config, "config.json");
  spec.removed = std::move(removed);
  return spec;
}

Json minimal(const Json& removed) {
  Json config = sd15();
  config.erase("_class_name");
  return {{"format", "laptopdiff.spec/1"},
          {"base", {{"class", "UNet2DConditionModel"}, {"config", config}}},
          {"removed", removed}};
}

std::string parse_failure(const Json& json) {
  return test::thrown_by([&] { unet::parse_spec(json, "spec.json"); }).message;
}

bool has(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

}  // namespace

TEST_CASE("units are those of the reference tables") {
  const unet::Program sd = unet::build_base(unet::parse_config(sd15(), "sd"));
  const auto units = unet::find_units(sd);
  REQUIRE(units.size() == 38);
  CHECK(units[4].layer == "down_blocks.1.resnets.0");
  CHECK(units[4].params == 6'352'640);            // without the shortcut that stays
  CHECK(units[1].params == 2'340'160 + 206'080);  // with its shell
  CHECK(unet::find_units(sd, unet::Shell::keep)[1].params == 2'340'160);
  CHECK(units[17].layer == "up_blocks.0.resnets.0");
  CHECK(units[17].params == 45'886'720);

  const unet::Program xl = unet::build_base(unet::parse_config(sdxl(), "xl"));
  CHECK(xl.params() == 2'567'463'684);
  CHECK(unet::find_units(xl).size() == 87);
  CHECK(unet::find_shells(xl, unet::find_units(xl)).size() == 11);
  CHECK(unet::find_units(xl)[9].params == 34'755'840);  // one of ten: its shell stays
}

TEST_CASE("what a unit frees is what its removal frees") {
  for (const Json& config : {sd15(), sdxl()}) {
    for (const unet::Shell shell : {unet::Shell::drop, unet::Shell::keep}) {
      Spec spec = make_spec(config, {});
      spec.shell = shell;
      const unet::Program base = unet::build_base(spec.base);
      for (const unet::Unit& unit : unet::find_units(base, shell)) {
        spec.removed = {{unit.layer, How::bypass}};
        const unet::Program pruned = unet::prune(base, spec);
        CHECK(base.params() - pruned.params() == unit.params);
        CHECK(base.macs() - pruned.macs() == unit.macs);
      }
    }
  }
}

TEST_CASE("removing everything that can be bypassed leaves the skeleton") {
  Spec spec = make_spec(sd15(), {});
  const unet::Program base = unet::build_base(spec.base);
  for (const unet::Unit& unit : unet::find_units(base)) spec.removed.push_back({unit.layer, How::bypass});
  CHECK(unet::prune(base, spec).params() ==
        859'520'964 - 514'413'120 - 242'408'640 - 24'830'720);  // layers.md, 90.94 %
  spec.shell = unet::Shell::keep;
  CHECK(unet::prune(base, spec).params() == 859'520'964 - 514'413'120 - 242'408'640);
}

TEST_CASE("a spec survives its JSON") {
  Spec spec = make_spec(sd15(), {{"up_blocks.1.resnets.2", How::bypass}, {"mid_block", How::drop}});
  spec.first_timestep = 100;
  spec.last_timestep = 400;
  spec.made_by = {{"solver", "knapsack"}};
  const Spec again = unet::parse_spec(unet::spec_json(spec), "spec.json");
  CHECK(unet::same_spec(spec, again));
  CHECK(unet::spec_json(again) == unet::spec_json(spec));
  CHECK(again.made_by == spec.made_by);
}

TEST_CASE("order and shorthand mean nothing to equality, everything else does") {
  const Spec a = make_spec(sdxl(), {{"down_blocks.1.attentions.0", How::bypass}, {"mid_block.resnets.0", How::bypass}});
  const Spec b = make_spec(sdxl(), {{"mid_block.resnets.0", How::bypass},
                                    {"down_blocks.1.attentions.0.transformer_blocks.1", How::bypass},
                                    {"down_blocks.1.attentions.0.transformer_blocks.0", How::bypass}});
  CHECK(unet::same_spec(a, b));
  CHECK(unet::spec_digest(a) == unet::spec_digest(b));
  Spec kept = a;
  kept.shell = unet::Shell::keep;
  CHECK_FALSE(unet::same_spec(a, kept));
  Spec later = a;
  later.first_timestep = 500;
  CHECK_FALSE(unet::same_spec(a, later));
}

TEST_CASE("a spec may be written by hand") {
  const Spec spec = unet::parse_spec(minimal({{{"layer", "mid_block.resnets.0"}}}), "spec.json");
  CHECK(spec.removed.front().how == How::bypass);
  CHECK(unet::build_program(spec).params() == 859'520'964 - 31'138'560);
}

TEST_CASE("a bad spec says what is wrong with it") {
  SUBCASE("unknown layer, near name") {
    const std::string message = parse_failure(minimal({{{"layer", "mid_block.resnet.0"}}}));
    CHECK(has(message, "mid_block.resnet.0"));
    CHECK(has(message, "mid_block.resnets.0"));
  }
  SUBCASE("listed twice") {
    CHECK(has(parse_failure(minimal({{{"layer", "mid_block.resnets.0"}}, {{"layer", "mid_block.resnets.0"}}})),
              "listed twice"));
  }
  SUBCASE("inside a dropped range") {
    const Json removed = {{{"layer", "mid_block"}, {"how", "drop"}}, {{"layer", "mid_block.resnets.0"}}};
    CHECK(has(parse_failure(minimal(removed)), "lies inside `mid_block`"));
  }
  SUBCASE("attention beside a dropped resnet") {
    const Json removed = {{{"layer", "up_blocks.1.resnets.1"}, {"how", "drop"}},
                          {{"layer", "down_blocks.1.resnets.1"}, {"how", "drop"}},
                          {{"layer", "up_blocks.1.attentions.1"}}};
    CHECK(has(parse_failure(minimal(removed)), "inside a dropped layer"));
  }
  SUBCASE("a down layer without its up layer") {
    const std::string message = parse_failure(minimal({{{"layer", "down_blocks.0.resnets.1"}, {"how", "drop"}}}));
    CHECK(has(message, "up_blocks."));
  }
  SUBCASE("unknown way") {
    CHECK(has(parse_failure(minimal({{{"layer", "mid_block"}, {"how", "skip"}}})), "expected bypass or drop"));
  }
  SUBCASE("unknown key") {
    Json json = minimal(Json::array());
    json["shel"] = "keep";
    CHECK(has(parse_failure(json), "did you mean `shell`"));
  }
  SUBCASE("wrong totals") {
    Json json = minimal(Json::array());
    json["totals"] = {{"params", {{"base", 1}, {"pruned", 1}}}};
    CHECK(has(parse_failure(json), "859520964"));
  }
  SUBCASE("wrong format") {
    Json json = minimal(Json::array());
    json["format"] = "laptopdiff.spec/9";
    CHECK(has(parse_failure(json), "laptopdiff.spec/1"));
  }
  SUBCASE("empty timesteps") {
    Json json = minimal(Json::array());
    json["timesteps"] = {500, 500};
    CHECK(has(parse_failure(json), "timesteps"));
  }
  SUBCASE("removed is no list") { CHECK(has(parse_failure(minimal("all")), "must be a list")); }
}

TEST_CASE("a config that cannot run is refused by the field's name") {
  const auto failure = [](const char* key, const Json& value) {
    Json config = sd15();
    config[key] = value;
    return test::thrown_by([&] { unet::parse_config(config, "config.json"); }).message;
  };
  CHECK(has(failure("dual_cross_attention", true), "dual_cross_attention"));
  CHECK(has(failure("encoder_hid_dim_type", "ip_image_proj"), "encoder_hid_dim_type"));
  CHECK(has(failure("time_embedding_type", "fourier"), "time_embedding_type"));
  CHECK(has(failure("act_fn", "tanh"), "act_fn"));
  CHECK(
      has(failure("down_block_types", {"KDownBlock2D", "DownBlock2D", "DownBlock2D", "DownBlock2D"}), "KDownBlock2D"));
  CHECK(has(failure("attention_head_dim", 7), "does not divide"));
  CHECK(has(failure("norm_num_groups", 33), "norm_num_groups"));
  CHECK(has(failure("block_out_channels", {320, 640}), "equally many"));
  CHECK(has(failure("layers_per_block", {2, 2}), "layers_per_block"));
  CHECK(has(failure("transformer_layers_per_block", {{1, 1}, {1, 1}, {1, 1}, 1}),
            "reverse_transformer_layers_per_block"));
  CHECK(has(failure("sample_size", "64"), "sample_size"));
  CHECK(has(test::thrown_by([] {
              unet::parse_config({{"_class_name", "FluxTransformer2DModel"}}, "config.json");
            }).message,
            "expected UNet2DConditionModel or UNet2DModel"));
}
