#include "runtime/json.h"

#include <cmath>
#include <limits>

#include "tests/support/temporary_folder.h"
#include "tests/support/thrown.h"

#include <doctest/doctest.h>

namespace laptopdiff::runtime {
namespace {

using test::thrown_by;

test::Thrown parsing(const std::string& text) {
  return thrown_by([&] { parse_json(text, "spec.json"); });
}

TEST_CASE("a document of every type comes back as it was written") {
  const Json json = parse_json(R"({"a": [1, -2, 3.5, 1e3, true, false, null, "text", {}, []], "b": {"c": "d"}})", "x");
  CHECK(json.at("a").size() == 10);
  CHECK(json.at("a")[0].is_number_unsigned());
  CHECK(json.at("a")[1] == -2);
  CHECK(json.at("a")[2] == 3.5);
  CHECK(json.at("a")[3] == 1000.0);
  CHECK(json.at("a")[6].is_null());
  CHECK(json.at("a")[8].is_object());
  CHECK(json.at("a")[9].is_array());
  CHECK(json.at("b").at("c") == "d");
  CHECK(parse_json(dump_json(json), "x") == json);
}

TEST_CASE("a document may be a single value, and may have space around it") {
  CHECK(parse_json("3", "x") == 3);
  CHECK(parse_json(" \n\t\"s\" \n", "x") == "s");
  CHECK(parse_json("null", "x").is_null());
}

TEST_CASE("text that is not JSON is refused with the file's name and the place") {
  for (const char* text :
       {"",    " ",  "{",  "[1,", "{\"a\":}", "{\"a\" 1}", "{a:1}", "[1 2]",      "{'a':1}",       "[1,]",
        "nul", "+1", "01", ".5",  "\"open",   "[\"\\x\"]", "NaN",   "[Infinity]", "// comment\n1", "\xff\xfe"}) {
    CAPTURE(text);
    const auto thrown = parsing(text);
    CHECK(thrown.code == ExitCode::bad_input);
    CHECK(thrown.says("spec.json: not valid JSON at byte"));
  }
}

TEST_CASE("bytes after the document are refused") {
  for (const char* text : {"{} {}", "1 2", "{}x", "[]]"}) {
    CAPTURE(text);
    CHECK(parsing(text).code == ExitCode::bad_input);
  }
  CHECK(parsing(std::string("{}\0", 3)).code == ExitCode::bad_input);
}

TEST_CASE("text that is not UTF-8 is refused") {
  CHECK(parsing("\"\xc3\"").code == ExitCode::bad_input);
  CHECK(parsing("\"\xed\xa0\x80\"").code == ExitCode::bad_input);  // a lone surrogate
  CHECK(parsing("\"\\ud800\"").code == ExitCode::bad_input);
}

TEST_CASE("a duplicate key is refused at any depth, the same key in two objects is not") {
  const auto thrown = parsing(R"({"steps": 1, "seed": 2, "steps": 3})");
  CHECK(thrown.code == ExitCode::bad_input);
  CHECK(thrown.says("spec.json: duplicate key `steps`"));
  CHECK(parsing(R"([{"a": {"b": 1, "b": 1}}])").says("duplicate key `b`"));
  CHECK(parsing(R"({"": 1, "": 2})").says("duplicate key ``"));
  CHECK_NOTHROW(parse_json(R"([{"a": 1}, {"a": {"a": 2}}])", "x"));
}

TEST_CASE("nesting is refused before it can overflow the stack") {
  const auto nested = [](int depth, char open, char close) {
    return std::string(depth, open) + std::string(depth, close);
  };
  CHECK_NOTHROW(parse_json(nested(kMaxJsonDepth, '[', ']'), "x"));
  CHECK(parsing(nested(kMaxJsonDepth + 1, '[', ']')).says("nested deeper than 128 levels"));
  CHECK(parsing(nested(200'000, '[', ']')).code == ExitCode::bad_input);
  std::string objects;
  for (int i = 0; i < 200'000; ++i) objects += "{\"a\":";
  CHECK(parsing(objects).says("nested deeper than 128 levels"));
}

TEST_CASE("a document of very many values is refused while it is read") {
  std::string text = "[";
  for (std::size_t i = 0; i < kMaxJsonValues; ++i) text += "[],";
  CHECK(parsing(text + "[]]").says("spec.json: more than 4194304 values"));
}

TEST_CASE("a long token that is not JSON is cut in the message") {
  const auto thrown = parsing("[\"" + std::string(100'000, 'y'));
  CHECK(thrown.says("spec.json: not valid JSON at byte "));
  CHECK(thrown.says("missing closing quote"));
  CHECK(thrown.message.size() < 600);
}

TEST_CASE("a number outside of double precision is refused") {
  CHECK(parsing("[1e999]").code == ExitCode::bad_input);
  CHECK(parsing("[-1e999]").code == ExitCode::bad_input);
  CHECK(parse_json("[1e-999]", "x")[0] == 0.0);
}

TEST_CASE("integers keep all their digits") {
  CHECK(parse_json("9223372036854775807", "x").get<std::int64_t>() == std::numeric_limits<std::int64_t>::max());
  CHECK(parse_json("18446744073709551615", "x").get<std::uint64_t>() == std::numeric_limits<std::uint64_t>::max());
}

TEST_CASE("a written document has sorted keys, two spaces and a last newline") {
  CHECK(dump_json(Json{{"b", 1}, {"a", Json::array({1, 2})}}) == "{\n  \"a\": [\n    1,\n    2\n  ],\n  \"b\": 1\n}\n");
  CHECK(dump_json(Json::object()) == "{}\n");
}

TEST_CASE("NaN and Inf are never written, and the first is named") {
  const double nan = std::numeric_limits<double>::quiet_NaN(), inf = std::numeric_limits<double>::infinity();
  const auto thrown = thrown_by([&] {
    dump_json(Json{{"units", Json::array({Json{{"score", 1.0}}, Json{{"score", nan}}})}});
  });
  CHECK(thrown.code == ExitCode::non_finite);
  CHECK(thrown.says("cannot write units[1].score: the number is NaN or Inf"));
  CHECK(thrown_by([&] { dump_json(Json(inf)); }).code == ExitCode::non_finite);
  CHECK(thrown_by([&] { dump_json(Json::array({1.0, -inf})); }).says("[1]"));
}

TEST_CASE("doubles survive writing and reading bit for bit") {
  for (const double value : {0.1, 1.0 / 3, 1e-308, 5e-324, 1.7976931348623157e308, -0.0}) {
    const double back = parse_json(dump_json(Json(value)), "x").get<double>();
    CHECK(back == value);
    CHECK(std::signbit(back) == std::signbit(value));
  }
}

TEST_CASE("a file is read and written under its own name") {
  const test::TemporaryFolder folder;
  write_json(folder / "deep/er/a.json", Json{{"x", 1}});
  CHECK(test::get_bytes(folder / "deep/er/a.json") == "{\n  \"x\": 1\n}\n");
  CHECK(read_json(folder / "deep/er/a.json") == Json{{"x", 1}});
  test::put_bytes(folder / "bad.json", "{");
  const auto thrown = thrown_by([&] { read_json(folder / "bad.json"); });
  CHECK(thrown.says((folder / "bad.json").string() + ": not valid JSON"));
}

TEST_CASE("a document that cannot be written leaves the old file as it was") {
  const test::TemporaryFolder folder;
  write_json(folder / "a.json", Json(1));
  CHECK_THROWS(write_json(folder / "a.json", Json(std::nan(""))));
  CHECK(test::get_bytes(folder / "a.json") == "1\n");
  CHECK(test::entry_count(folder.path()) == 1);
}

TEST_CASE("an object reader gives fields by name and type") {
  const Json json = parse_json(R"({"flag": true, "steps": 7, "big": 5000000000, "seed": 18446744073709551615, "rate": 1,
      "name": "x", "names": ["a", "b"], "sizes": [1, 2], "wide": [5000000000], "rates": [0.5, 1]})",
                               "x");
  ObjectReader in(json, "config.json");
  CHECK(in.required<bool>("flag"));
  CHECK(in.required<int>("steps") == 7);
  CHECK(in.required<std::int64_t>("big") == 5'000'000'000);
  CHECK(in.required<std::uint64_t>("seed") == std::numeric_limits<std::uint64_t>::max());
  CHECK(in.required<double>("rate") == 1.0);
  CHECK(in.required<std::string>("name") == "x");
  CHECK(in.required<std::vector<std::string>>("names") == std::vector<std::string>{"a", "b"});
  CHECK(in.required<std::vector<int>>("sizes") == std::vector<int>{1, 2});
  CHECK(in.required<std::vector<std::int64_t>>("wide") == std::vector<std::int64_t>{5'000'000'000});
  CHECK(in.required<std::vector<double>>("rates") == std::vector<double>{0.5, 1.0});
  CHECK(in.get<int>("absent", 3) == 3);
  CHECK(in.get<int>("steps", 3) == 7);
  CHECK(in.unread().empty());
  CHECK_NOTHROW(in.finish());
}

TEST_CASE("null is an absent value") {
  const Json json = parse_json(R"({"a": null})", "x");
  ObjectReader in(json, "x");
  CHECK_FALSE(in.has("a"));
  CHECK(in.get<int>("a", 5) == 5);
  CHECK(thrown_by([&] { in.required<int>("a"); }).says("x: `a` is missing"));
  CHECK(in.raw("a").is_null());
  CHECK(in.raw("absent").is_null());
}

TEST_CASE("a missing field is named") {
  const Json json = Json::object();
  ObjectReader in(json, "spec.json: base");
  const auto thrown = thrown_by([&] { in.required<std::string>("class"); });
  CHECK(thrown.code == ExitCode::bad_input);
  CHECK(thrown.message == "spec.json: base: `class` is missing");
}

TEST_CASE("unknown keys are errors that name the nearest known one, all at once") {
  const Json json = parse_json(R"({"seed": 1, "stesp": 2, "qqqqqqqq": 3, "_note": 4})", "x");
  ObjectReader in(json, "distill.json");
  in.get<int>("seed", 0);
  in.get<int>("steps", 0);
  in.ignore("_note");
  CHECK(in.unread() == std::vector<std::string>{"qqqqqqqq", "stesp"});
  const auto thrown = thrown_by([&] { in.finish(); });
  CHECK(thrown.code == ExitCode::bad_input);
  CHECK(thrown.says("distill.json: unknown key `qqqqqqqq`"));
  CHECK(thrown.says("unknown key `stesp` (did you mean `steps`"));
}

TEST_CASE("of very many unknown keys only the first are named, each shortened") {
  Json json = Json::object();
  for (int i = 0; i < 1000; ++i) json["key" + std::to_string(i) + std::string(500, 'x')] = i;
  ObjectReader in(json, "spec.json");
  in.get<int>("steps", 0);
  const auto thrown = thrown_by([&] { in.finish(); });
  CHECK(thrown.says("and 984 more"));
  CHECK(thrown.message.size() < 4000);
}

TEST_CASE("an object is expected where one is read") {
  for (const char* text : {"[]", "3", "\"x\"", "null"}) {
    const Json json = parse_json(text, "x");
    const auto thrown = thrown_by([&] { ObjectReader(json, "spec.json"); });
    CHECK(thrown.code == ExitCode::bad_input);
    CHECK(thrown.says("spec.json: expected an object {...}, got "));
  }
}

template <typename T>
test::Thrown converting(const char* text) {
  return thrown_by([&] { ObjectReader::convert<T>(parse_json(text, "x"), "a.json: `n`"); });
}

TEST_CASE("a value of another type is refused, with what it is") {
  CHECK(converting<bool>("1").message == "a.json: `n` must be true or false, is 1");
  CHECK(converting<bool>("\"true\"").says("must be true or false"));
  CHECK(converting<int>("1.5").message == "a.json: `n` must be an integer, is 1.5");
  CHECK(converting<int>("1.0").says("must be an integer"));
  CHECK(converting<int>("true").says("must be an integer"));
  CHECK(converting<std::int64_t>("\"1\"").says("must be an integer"));
  CHECK(converting<std::uint64_t>("[1]").says("must be an integer"));
  CHECK(converting<double>("\"0.5\"").message == "a.json: `n` must be a number, is \"0.5\"");
  CHECK(converting<double>("false").says("must be a number"));
  CHECK(converting<std::string>("1").message == "a.json: `n` must be a string, is 1");
  CHECK(converting<std::vector<int>>("1").message == "a.json: `n` must be a list, is 1");
  CHECK(converting<std::vector<int>>("[1, \"2\"]").message == "a.json: `n`[1] must be an integer, is \"2\"");
  CHECK(converting<std::vector<std::string>>("[\"a\", 2]").says("`n`[1] must be a string"));
  CHECK(converting<std::vector<double>>("[null]").says("`n`[0] must be a number"));
  CHECK(converting<bool>("1").code == ExitCode::bad_input);
}

TEST_CASE("an integer out of its type's range is refused") {
  CHECK(ObjectReader::convert<int>(Json(2147483647), "n") == 2147483647);
  CHECK(ObjectReader::convert<int>(Json(-2147483648ll), "n") == std::numeric_limits<int>::min());
  CHECK(converting<int>("2147483648").message == "a.json: `n`: 2147483648 is out of range");
  CHECK(converting<int>("-2147483649").says("is out of range"));
  CHECK(converting<std::int64_t>("9223372036854775808").says("is out of range"));
  CHECK(ObjectReader::convert<std::int64_t>(parse_json("-9223372036854775808", "x"), "n") ==
        std::numeric_limits<std::int64_t>::min());
  CHECK(converting<std::uint64_t>("-1").message == "a.json: `n` must not be negative, is -1");
  CHECK(converting<std::uint64_t>("-9223372036854775808").says("must not be negative"));
}

TEST_CASE("an integer that C++ code put in as signed is accepted as unsigned") {
  CHECK(ObjectReader::convert<std::uint64_t>(Json(7), "n") == 7);
}

TEST_CASE("a NaN that C++ code put in is not a number") {
  const auto thrown = thrown_by([] { ObjectReader::convert<double>(Json(std::nan("")), "x: `rate`"); });
  CHECK(thrown.code == ExitCode::bad_input);
  CHECK(thrown.says("x: `rate` must be finite"));
}

TEST_CASE("a long wrong value is cut in the message") {
  const Json json(std::string(10'000, 'y'));
  const auto thrown = thrown_by([&] { ObjectReader::convert<int>(json, "n"); });
  CHECK(thrown.message.size() < 200);
}

}  // namespace
}  // namespace laptopdiff::runtime
