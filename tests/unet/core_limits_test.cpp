// Configs and specs whose every field is in its range, and whose product no machine could build or count.
#include "tests/support/architectures.h"
#include "tests/support/thrown.h"
#include "unet/spec.h"

#include <doctest/doctest.h>

namespace laptopdiff::unet {
namespace {

using runtime::ExitCode;
using test::sd15;
using test::thrown_by;

test::Thrown building(const Json& change) {
  Json json = sd15();
  json.update(change);
  return thrown_by([&] { build_base(parse_config(json, "config.json")); });
}

TEST_CASE("a config with more blocks than anyone could run is refused before its steps are made") {
  const auto thrown = building({{"layers_per_block", 64}, {"transformer_layers_per_block", 256}});
  CHECK(thrown.code == ExitCode::bad_input);
  CHECK(thrown.says("config.json: `layers_per_block` and `transformer_layers_per_block` make "));
  CHECK(building({{"transformer_layers_per_block", 128}}).code == ExitCode::ok);
}

TEST_CASE("work that does not fit in 64 bits is refused, not counted wrong") {
  const auto thrown = building({{"sample_size", 1 << 20}, {"conv_in_kernel", 127}, {"in_channels", 1 << 20}});
  CHECK(thrown.code == ExitCode::bad_input);
  CHECK(thrown.says("more multiply-accumulates than can be counted"));
  CHECK(building({{"sample_size", 1 << 20}}).says("is `sample_size` right?"));
  CHECK(building({{"sample_size", 1 << 12}}).code == ExitCode::ok);
}

TEST_CASE("a kernel larger than any in use is refused by its name") {
  CHECK(building({{"conv_in_kernel", 129}}).says("`conv_in_kernel` is 129, expected 1 to 127"));
}

TEST_CASE("a config's empty key is an unknown one") {
  Json json = sd15();
  json[""] = 1;
  const Config config = parse_config(json, "config.json");
  CHECK(comparable_config(config).contains(""));
}

TEST_CASE("a spec that lists more removals than its base has layers is refused at once") {
  Json removed = Json::array();
  for (int i = 0; i < 2000; ++i) removed.push_back({{"layer", "down_blocks.0.resnets.1"}});
  const Json spec = {{"format", "laptopdiff.spec/1"},
                     {"base", {{"class", "UNet2DConditionModel"}, {"config", sd15()}}},
                     {"removed", removed}};
  const auto thrown = thrown_by([&] { parse_spec(spec, "spec.json"); });
  CHECK(thrown.code == ExitCode::bad_input);
  CHECK(thrown.says("spec.json: removed: 2000 entries"));
}

}  // namespace
}  // namespace laptopdiff::unet
