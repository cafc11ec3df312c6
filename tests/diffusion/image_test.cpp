#include "diffusion/image.h"

#include <torch/types.h>

#include "tests/support/temporary_folder.h"
#include "tests/support/thrown.h"

#include <doctest/doctest.h>

namespace laptopdiff::diffusion {
namespace {

using laptopdiff::test::entry_count;
using laptopdiff::test::get_bytes;
using laptopdiff::test::put_bytes;
using laptopdiff::test::TemporaryFolder;
using laptopdiff::test::thrown_by;
using runtime::ExitCode;

TEST_CASE("a written image reads back byte for byte") {
  const TemporaryFolder folder;
  for (const std::int64_t channels : {1, 3}) {
    const at::Tensor image = at::randint(0, 256, {5, 9, channels}, at::kByte);
    write_png(folder / "i.png", image);
    CHECK(at::equal(read_png(folder / "i.png"), image));
    // A view that is not contiguous, too.
    write_png(folder / "t.png", image.transpose(0, 1));
    CHECK(at::equal(read_png(folder / "t.png"), image.transpose(0, 1)));
  }
  CHECK(entry_count(folder.path()) == 2);
}

TEST_CASE("a PNG file cut short anywhere is refused") {
  const TemporaryFolder folder;
  write_png(folder / "i.png", at::randint(0, 256, {16, 16, 3}, at::kByte));
  const std::string bytes = get_bytes(folder / "i.png");

  for (std::size_t length = 0; length < bytes.size(); length += 7) {
    CAPTURE(length);
    put_bytes(folder / "cut.png", bytes.substr(0, length));
    const auto thrown = thrown_by([&] { read_png(folder / "cut.png"); });
    CHECK(thrown.code == ExitCode::bad_input);
    CHECK(thrown.says("not a whole PNG image"));
  }
}

TEST_CASE("a PNG file with a flipped bit is refused") {
  const TemporaryFolder folder;
  write_png(folder / "i.png", at::randint(0, 256, {16, 16, 3}, at::kByte));
  std::string bytes = get_bytes(folder / "i.png");
  bytes[bytes.size() / 2] = static_cast<char>(bytes[bytes.size() / 2] ^ 4);
  put_bytes(folder / "bad.png", bytes);
  CHECK(thrown_by([&] { read_png(folder / "bad.png"); }).code == ExitCode::bad_input);
}

TEST_CASE("sizes are checked before memory is taken") {
  const TemporaryFolder folder;
  write_png(folder / "wide.png", at::zeros({1, kMaxImageSide + 1, 1}, at::kByte));
  const auto thrown = thrown_by([&] { read_png(folder / "wide.png"); });
  CHECK(thrown.code == ExitCode::bad_input);
  CHECK(thrown.says("is too large"));
}

TEST_CASE("files that are not there or not PNG are refused") {
  const TemporaryFolder folder;
  CHECK(thrown_by([&] { read_png(folder / "none.png"); }).code == ExitCode::bad_input);
  put_bytes(folder / "text.png", "hello");
  CHECK(thrown_by([&] { read_png(folder / "text.png"); }).says("not a whole PNG image"));
}

TEST_CASE("an image that cannot be written leaves nothing behind") {
  const TemporaryFolder folder;
  put_bytes(folder / "file", "x");
  const auto thrown = thrown_by([&] { write_png(folder / "file" / "i.png", at::zeros({2, 2, 3}, at::kByte)); });
  CHECK(thrown.code == ExitCode::resources);
  CHECK(entry_count(folder.path()) == 1);
}

TEST_CASE("decoded values become bytes by clamp and round") {
  const at::Tensor decoded = at::tensor({-2.F, -1.F, 0.F, 0.5F, 1.F, 2.F}).view({1, 1, 2, 3});
  const at::Tensor expected = at::tensor({0, 0, 128, 191, 255, 255}, at::kByte).view({1, 2, 3, 1});
  CHECK(at::equal(to_u8(decoded), expected));
}

TEST_CASE("bytes become values and bytes again") {
  const at::Tensor bytes = at::arange(256, at::kByte).view({1, 16, 16, 1});
  const at::Tensor values = from_u8(bytes);
  CHECK(values.sizes() == at::IntArrayRef{1, 1, 16, 16});
  CHECK(values.min().item<double>() == -1);
  CHECK(values.max().item<double>() == 1);
  CHECK(at::equal(to_u8(values), bytes));
  CHECK(from_u8(bytes[0]).sizes() == at::IntArrayRef{1, 16, 16});
}

}  // namespace
}  // namespace laptopdiff::diffusion
