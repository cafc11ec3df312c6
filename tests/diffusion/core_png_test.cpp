#include <zlib.h>

#include "diffusion/png.h"
#include "tests/support/temporary_folder.h"
#include "tests/support/thrown.h"

#include <doctest/doctest.h>

namespace laptopdiff::diffusion {
namespace {

using test::thrown_by;

std::string big_endian(std::uint32_t value) {
  std::string bytes;
  for (int shift = 24; shift >= 0; shift -= 8) bytes += static_cast<char>(value >> shift & 0xff);
  return bytes;
}

std::string chunk(const std::string& name, const std::string& data) {
  const std::string body = name + data;
  const auto sum = ::crc32(0, reinterpret_cast<const Bytef*>(body.data()), static_cast<uInt>(body.size()));
  return big_endian(static_cast<std::uint32_t>(data.size())) + body + big_endian(static_cast<std::uint32_t>(sum));
}

std::string deflated(const std::string& bytes) {
  std::string out(::compressBound(bytes.size()), '\0');
  uLongf size = out.size();
  REQUIRE(::compress(reinterpret_cast<Bytef*>(out.data()), &size, reinterpret_cast<const Bytef*>(bytes.data()),
                     bytes.size()) == Z_OK);
  return out.substr(0, size);
}

// An 8-bit grey image that claims a size and holds `rows`.
std::string grey(std::uint32_t width, std::uint32_t height, const std::string& rows) {
  return "\x89PNG\r\n\x1a\n" + chunk("IHDR", big_endian(width) + big_endian(height) + std::string("\x8\0\0\0\0", 5)) +
         chunk("IDAT", deflated(rows)) + chunk("IEND", "");
}

test::Thrown decoding(const std::string& bytes) {
  return thrown_by([&] { decode_png(bytes, "i.png"); });
}

TEST_CASE("pixels come back row by row") {
  const Pixels pixels = decode_png(grey(2, 3, std::string("\0ab\0cd\0ef", 9)), "i.png");
  CHECK(pixels.width == 2);
  CHECK(pixels.height == 3);
  CHECK(pixels.channels == 1);
  CHECK(std::string(pixels.bytes.begin(), pixels.bytes.end()) == "abcdef");
}

TEST_CASE("an image that claims to be huge is refused before libpng takes memory for its rows") {
  const auto thrown = decoding(grey(100'000, 100'000, std::string(100, '\0')));
  CHECK(thrown.code == runtime::ExitCode::bad_input);
  CHECK(thrown.says("i.png: image of 100000 x 100000 is too large"));
  CHECK(decoding(grey(2'000'000'000, 1, std::string(100, '\0'))).says("image of 2000000000 x 1 is too large"));
}

TEST_CASE("an image that its file is too short for is refused before memory is taken for it") {
  const auto thrown = decoding(grey(8192, 8192, std::string(100, '\0')));
  CHECK(thrown.code == runtime::ExitCode::bad_input);
  CHECK(thrown.says("bytes cannot hold 8192 x 8192 pixels"));
  CHECK(decoding(grey(1024, 1024, std::string(1024 * 1025, '\0'))).code == runtime::ExitCode::ok);
}

TEST_CASE("chunks that have no pixels are skipped, whatever they claim or hold") {
  const std::string image = grey(1, 1, std::string("\0a", 2)), header = image.substr(0, 33), rest = image.substr(33);
  const std::string noise = chunk("zTXt", "Title") + chunk("iCCP", "name") + chunk("eXIf", "?") + chunk("abCd", "x");
  CHECK(decode_png(header + noise + rest, "i.png").bytes == std::vector<std::uint8_t>{'a'});
  CHECK(decoding(header + big_endian(1u << 30) + "eXIf" + rest).says("the file ends early"));
}

TEST_CASE("a decoded image is written and read back as it was") {
  const test::TemporaryFolder folder;
  const std::vector<std::uint8_t> bytes{1, 2, 3, 250, 251, 252};
  write_png_file(folder / "i.png", 1, 2, 3, bytes);
  const Pixels pixels = decode_png(test::get_bytes(folder / "i.png"), "i.png");
  CHECK(pixels.bytes == bytes);
  CHECK(pixels.channels == 3);
}

}  // namespace
}  // namespace laptopdiff::diffusion
