#include "metrics/prompt_file.h"
#include "tests/support/temporary_folder.h"
#include "tests/support/thrown.h"

#include <doctest/doctest.h>

namespace laptopdiff::metrics {
namespace {

using Lines = std::vector<std::string>;

TEST_CASE("a prompt a line; empty lines are empty prompts, the last newline is none") {
  const test::TemporaryFolder folder;
  const auto read = [&](const char* text) {
    test::put_bytes(folder / "prompts.txt", text);
    return read_prompts(folder / "prompts.txt");
  };
  CHECK(read("a cat\na dog\n") == Lines{"a cat", "a dog"});
  CHECK(read("a cat\na dog") == Lines{"a cat", "a dog"});
  CHECK(read("a cat\r\n\r\na dog\r\n") == Lines{"a cat", "", "a dog"});
  CHECK(read("\n") == Lines{""});
}

TEST_CASE("rows of JSON give their field") {
  const test::TemporaryFolder folder;
  test::put_bytes(folder / "rows.jsonl",
                  "{\"text\": \"a bag\", \"label\": 8}\n{\"text\": \"a shirt\", \"label\": \"shirt\"}\n");
  CHECK(read_prompts(folder / "rows.jsonl") == Lines{"a bag", "a shirt"});
  CHECK(read_labels(folder / "rows.jsonl") == Lines{"8", "shirt"});
}

TEST_CASE("a file that is no list of prompts says where") {
  const test::TemporaryFolder folder;
  const auto failure = [&](const char* text) {
    test::put_bytes(folder / "rows.jsonl", text);
    return test::thrown_by([&] { read_prompts(folder / "rows.jsonl"); });
  };
  SUBCASE("missing") {
    const auto thrown = test::thrown_by([&] { read_prompts(folder / "none.txt"); });
    CHECK(thrown.code == runtime::ExitCode::bad_input);
    CHECK(thrown.says("none.txt"));
  }
  SUBCASE("empty") { CHECK(failure("").says("the file is empty; expected a line a picture")); }
  SUBCASE("no field") {
    CHECK(failure("{\"text\": \"a\"}\n{\"txt\": \"b\"}\n").says("line 2: expected an object with `text`"));
  }
  SUBCASE("another type") { CHECK(failure("{\"text\": 3}\n").says("line 1: `text` is 3, expected a string")); }
  SUBCASE("no JSON") { CHECK(failure("a cat\n").says("line 1: not valid JSON")); }
}

}  // namespace
}  // namespace laptopdiff::metrics
