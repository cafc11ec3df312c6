#include "diffusion/tokenizer_files.h"
#include "runtime/json.h"
#include "tests/support/temporary_folder.h"
#include "tests/support/thrown.h"

#include <doctest/doctest.h>

namespace laptopdiff::diffusion {
namespace {

TEST_CASE("a tokenizer with more added tokens than can be looked for in a text is refused") {
  const test::TemporaryFolder folder;
  runtime::Json vocabulary = {{"<|startoftext|>", 0}, {"<|endoftext|>", 1}}, added = runtime::Json::object();
  for (int i = 0; i < 5000; ++i) added["<" + std::to_string(i) + ">"] = i + 2;
  runtime::write_json(folder / "vocab.json", vocabulary);
  test::put_bytes(folder / "merges.txt", "");
  runtime::write_json(folder / "added_tokens.json", added);
  const auto thrown = test::thrown_by([&] { read_tokenizer_files(folder.path()); });
  CHECK(thrown.code == runtime::ExitCode::bad_input);
  CHECK(thrown.says(folder.path().string() + ": more than 4096 added tokens"));
}

}  // namespace
}  // namespace laptopdiff::diffusion
