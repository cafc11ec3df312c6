#include "runtime/config.h"

#include "tests/support/thrown.h"

#include <doctest/doctest.h>

namespace laptopdiff::runtime {
namespace {

using test::thrown_by;

struct Optimizer {
  double rate = 1e-4;
  std::string kind = "adamw";

  template <typename V>
  void fields(V& v) {
    v("rate", rate, "learning rate");
    v("kind", kind, "adamw or sgd");
  }
};

struct Training {
  std::int64_t steps = 1000;
  std::uint64_t seed = 0;
  bool ema = true;
  std::vector<std::string> taps{"bk"};
  std::vector<double> ratios;
  Json extra;
  Optimizer optimizer;

  template <typename V>
  void fields(V& v) {
    v("steps", steps, "number of updates");
    v("seed", seed, "seed of all draws");
    v("ema", ema, "keep an average of the weights");
    v("taps", taps, "where features are compared");
    v("ratios", ratios, "shares that are kept");
    v("extra", extra, "passed on as it is");
    v("optimizer", optimizer, "how weights are updated");
  }
};

TEST_CASE("an empty document gives the defaults") {
  const auto config = read_config<Training>(Json::object(), "c.json");
  CHECK(config.steps == 1000);
  CHECK(config.seed == 0);
  CHECK(config.ema);
  CHECK(config.taps == std::vector<std::string>{"bk"});
  CHECK(config.ratios.empty());
  CHECK(config.extra.is_null());
  CHECK(config.optimizer.rate == 1e-4);
}

TEST_CASE("what a document gives replaces the defaults, field by field and inside") {
  const Json json = parse_json(R"({"steps": 5, "taps": [], "ratios": [0.5, 1], "extra": {"any": [1]},
                                   "optimizer": {"kind": "sgd"}})",
                               "c.json");
  const auto config = read_config<Training>(json, "c.json");
  CHECK(config.steps == 5);
  CHECK(config.taps.empty());
  CHECK(config.ratios == std::vector<double>{0.5, 1.0});
  CHECK(config.extra == Json{{"any", {1}}});
  CHECK(config.optimizer.kind == "sgd");
  CHECK(config.optimizer.rate == 1e-4);
}

TEST_CASE("writing and reading a config is the identity, and every field is written") {
  Training config;
  config.steps = 3;
  config.seed = 1ull << 63;
  config.ema = false;
  config.ratios = {0.25};
  config.optimizer.rate = 0.1;
  const Json json = write_config(config);
  CHECK(json.size() == 7);
  CHECK(json.at("optimizer").size() == 2);
  CHECK(write_config(read_config<Training>(json, "x")) == json);
  CHECK(write_config(read_config<Training>(parse_json(dump_json(json), "x"), "x")) == json);
}

TEST_CASE("an unknown field is an error with its place and the nearest name") {
  const auto read = [](const char* text) {
    return thrown_by([&] { read_config<Training>(parse_json(text, "c.json"), "c.json"); });
  };
  CHECK(read(R"({"step": 1})").code == ExitCode::bad_input);
  CHECK(read(R"({"step": 1})").says("c.json: unknown key `step` (did you mean `steps`"));
  CHECK(read(R"({"optimizer": {"rat": 1}})").says("c.json: `optimizer`: unknown key `rat` (did you mean `rate`?)"));
}

TEST_CASE("a field of another type is an error with its place") {
  const auto read = [](const char* text) {
    return thrown_by([&] { read_config<Training>(parse_json(text, "c.json"), "c.json"); });
  };
  CHECK(read(R"({"steps": "many"})").message == "c.json: `steps` must be an integer, is \"many\"");
  CHECK(read(R"({"seed": -1})").says("c.json: `seed` must not be negative"));
  CHECK(read(R"({"optimizer": {"rate": true}})").says("c.json: `optimizer`: `rate` must be a number"));
  CHECK(read(R"({"optimizer": 3})").says("c.json: `optimizer`: expected an object"));
  CHECK(read("[]").says("c.json: expected an object"));
}

TEST_CASE("help lists every field with its default, groups indented") {
  CHECK(config_help<Optimizer>() ==
        "  rate: learning rate (default 0.0001)\n"
        "  kind: adamw or sgd (default \"adamw\")\n");
  const std::string help = config_help<Training>();
  CHECK(help.find("  steps: number of updates (default 1000)\n") != std::string::npos);
  CHECK(help.find("  optimizer: how weights are updated\n    rate: learning rate") != std::string::npos);
}

Json set(Json document, const std::string& setting) {
  apply_setting(document, setting);
  return document;
}

TEST_CASE("a setting is JSON where it can be, else text") {
  CHECK(set(Json::object(), "steps=5") == Json{{"steps", 5}});
  CHECK(set(Json::object(), "rate=1e-3") == Json{{"rate", 1e-3}});
  CHECK(set(Json::object(), "ema=false") == Json{{"ema", false}});
  CHECK(set(Json::object(), "kind=sgd") == Json{{"kind", "sgd"}});
  CHECK(set(Json::object(), "kind=\"5\"") == Json{{"kind", "5"}});
  CHECK(set(Json::object(), "taps=[\"a\",\"b\"]") == Json{{"taps", {"a", "b"}}});
  CHECK(set(Json::object(), "name=") == Json{{"name", ""}});
  CHECK(set(Json::object(), "text=a=b") == Json{{"text", "a=b"}});
}

TEST_CASE("a setting's path makes the objects on its way and keeps what is beside") {
  CHECK(set(Json{{"a", {{"x", 1}}}}, "a.b.c=2") == Json{{"a", {{"x", 1}, {"b", {{"c", 2}}}}}});
  CHECK(set(Json{{"a", nullptr}}, "a.b=1") == Json{{"a", {{"b", 1}}}});
  CHECK(set(Json(), "a=1") == Json{{"a", 1}});
  CHECK(set(Json{{"a", 1}}, "a=2") == Json{{"a", 2}});
}

TEST_CASE("a setting without a name, or through a value, is wrong usage") {
  for (const std::string setting : {"steps", "=5", ""}) {
    CAPTURE(setting);
    const auto thrown = thrown_by([&] { set(Json::object(), setting); });
    CHECK(thrown.code == ExitCode::usage);
    CHECK(thrown.says("expected a.b=value, for example --set train.steps=100"));
  }
  const auto through = thrown_by([] { set(Json{{"a", {{"b", 1}}}}, "a.b.c=2"); });
  CHECK(through.code == ExitCode::usage);
  CHECK(through.says("--set a.b.c=2: `a.b` is not an object"));
  for (const std::string setting : {"a..b=1", ".a=1", "a.=1"}) {
    CAPTURE(setting);
    CHECK(thrown_by([&] { set(Json::object(), setting); }).code == ExitCode::usage);
  }
}

TEST_CASE("a setting cannot bring in what a file may not hold") {
  CHECK(thrown_by([] { set(Json::object(), "a={\"b\":1,\"b\":2}"); }).says("duplicate key `b`"));
  CHECK(thrown_by([] { set(Json::object(), "a=" + std::string(1000, '[') + std::string(1000, ']')); }).code ==
        ExitCode::usage);
}

}  // namespace
}  // namespace laptopdiff::runtime
