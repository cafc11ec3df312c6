#include "runtime/error.h"

#include <doctest/doctest.h>

namespace laptopdiff::runtime {
namespace {

TEST_CASE("an error carries the exit code that the command line promises") {
  CHECK(usage_error("x").code() == ExitCode::usage);
  CHECK(input_error("x").code() == ExitCode::bad_input);
  CHECK(non_finite_error("x").code() == ExitCode::non_finite);
  CHECK(resource_error("x").code() == ExitCode::resources);
  CHECK(static_cast<int>(ExitCode::ok) == 0);
  CHECK(static_cast<int>(ExitCode::usage) == 2);
  CHECK(static_cast<int>(ExitCode::bad_input) == 3);
  CHECK(static_cast<int>(ExitCode::non_finite) == 4);
  CHECK(static_cast<int>(ExitCode::resources) == 5);
  CHECK(static_cast<int>(ExitCode::stopped) == 75);
  CHECK(static_cast<int>(ExitCode::interrupted) == 130);
}

TEST_CASE("an error's message is its arguments one after another") {
  CHECK(std::string(input_error("layer ", 3, ": ", 0.5).what()) == "layer 3: 0.5");
  CHECK(cat('a', std::string("b"), 1) == "ab1");
}

TEST_CASE("near names come nearest first") {
  const std::vector<std::string> layers{"down_blocks.0.resnets.0", "down_blocks.0.resnets.1", "mid_block.resnets.0"};
  CHECK(near_names("down_blocks.0.resnets.1x", layers, 1) == std::vector<std::string>{"down_blocks.0.resnets.1"});
  CHECK(near_names("down_block.0.resnets.0", layers).front() == "down_blocks.0.resnets.0");
  // One letter away before two; equal distances by name.
  CHECK(near_names("seed", {"sede", "seek", "need"}) == std::vector<std::string>{"need", "seek", "sede"});
}

TEST_CASE("near names leave out what is far, and more than asked for") {
  CHECK(near_names("seed", {"output_folder", "resolution"}).empty());
  CHECK(near_names("a", {"b", "c", "d", "e"}, 2) == std::vector<std::string>{"b", "c"});
  CHECK(near_names("seed", {}).empty());
  CHECK(near_names("", {"ab", "abc"}) == std::vector<std::string>{"ab"});
}

TEST_CASE("near names of a huge name cost little") {
  const std::string huge(1 << 20, 'x');
  CHECK(near_names(huge, {std::string(1 << 20, 'x'), "y"}).size() == 1);
}

TEST_CASE("did_you_mean asks for a near name, lists a short list, and is silent on a long one") {
  CHECK(did_you_mean("sede", {"seed", "steps_per_epoch"}) == " (did you mean `seed`?)");
  CHECK(did_you_mean("ab", {"abc", "abd"}) == " (did you mean `abc` or `abd`?)");
  CHECK(did_you_mean("qqqqqq", {"knapsack", "gram"}) == " (known: knapsack, gram)");
  CHECK(did_you_mean("qqqqqq", {}) == "");
  CHECK(did_you_mean("qqqqqq", std::vector<std::string>(17, "a_long_other_name")) == "");
}

TEST_CASE("join puts the separator between words only") {
  CHECK(join({}) == "");
  CHECK(join({"a"}) == "a");
  CHECK(join({"a", "b", "c"}) == "a, b, c");
  CHECK(join({"a", "b"}, "` or `") == "a` or `b");
}

}  // namespace
}  // namespace laptopdiff::runtime
