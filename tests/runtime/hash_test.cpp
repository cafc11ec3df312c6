// Vectors: FIPS 180-2, appendix B (SHA-256 examples), and the empty message.
#include "runtime/hash.h"

#include <string>

#include "tests/support/temporary_folder.h"
#include "tests/support/thrown.h"

#include <doctest/doctest.h>

namespace laptopdiff::runtime {
namespace {

constexpr char kTwoBlocks[] = "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq";

TEST_CASE("sha256 agrees with the published vectors") {
  CHECK(sha256("") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  CHECK(sha256("abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  CHECK(sha256(kTwoBlocks) == "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
  CHECK(sha256(std::string(1'000'000, 'a')) == "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

TEST_CASE("sha256 does not depend on how the bytes are cut") {
  const std::string text = std::string(130, 'q') + kTwoBlocks + std::string(63, 'z');
  const std::string whole = sha256(text);
  for (const std::size_t piece : {1, 3, 55, 56, 63, 64, 65, 128, 200}) {
    Sha256 hash;
    for (std::size_t i = 0; i < text.size(); i += piece) hash.add(std::string_view(text).substr(i, piece));
    CHECK(hash.hex() == whole);
  }
}

TEST_CASE("messages whose padding just fits and just does not have different lengths of tail") {
  std::string last;
  for (std::size_t length = 50; length < 70; ++length) {
    const std::string digest = sha256(std::string(length, 'x'));
    CHECK(digest.size() == 64);
    CHECK(digest != last);
    last = digest;
  }
}

TEST_CASE("sha256_file is the hash of the file's bytes") {
  const test::TemporaryFolder folder;
  const std::string bytes = std::string(2'500'000, '\0') + "end";  // more than one read
  test::put_bytes(folder / "data", bytes);
  CHECK(sha256_file(folder / "data") == sha256(bytes));
  test::put_bytes(folder / "empty", "");
  CHECK(sha256_file(folder / "empty") == sha256(""));
}

TEST_CASE("sha256_file names a file that is not there") {
  const auto thrown = test::thrown_by([] { sha256_file("/nowhere/model.safetensors"); });
  CHECK(thrown.code == ExitCode::bad_input);
  CHECK(thrown.says("cannot read /nowhere/model.safetensors: No such file"));
}

TEST_CASE("sha256_file refuses a folder") {
  const test::TemporaryFolder folder;
  const auto thrown = test::thrown_by([&] { sha256_file(folder.path()); });
  CHECK(thrown.code == ExitCode::bad_input);
  CHECK(thrown.says("cannot read " + folder.path().string()));
}

}  // namespace
}  // namespace laptopdiff::runtime
