// Any bytes as a PNG file: what is decoded has the size it claims, and is the same after writing and decoding again.
#include <zlib.h>

#include <algorithm>

#include "diffusion/png.h"
#include "tests/fuzz/fuzz.h"

namespace {

using namespace laptopdiff;
using diffusion::Pixels;

constexpr std::size_t kSignature = 8, kChunkFrame = 12;  // length, name, checksum: 4 bytes each
constexpr std::int64_t kWrittenPixels = 64 * 64;         // larger ones are decoded, but not written again

std::uint32_t big_endian(const std::uint8_t* bytes) {
  return std::uint32_t{bytes[0]} << 24 | std::uint32_t{bytes[1]} << 16 | std::uint32_t{bytes[2]} << 8 | bytes[3];
}

// Makes the checksum of every whole chunk right, so that mutations get past it.
void repair_checksums(std::uint8_t* data, std::size_t size) {
  for (std::size_t at = kSignature; at + kChunkFrame <= size;) {
    const std::size_t length = big_endian(data + at);
    if (length > size - at - kChunkFrame) return;
    const uLong sum = ::crc32(0, data + at + 4, static_cast<uInt>(length + 4));
    for (int i = 0; i < 4; ++i)
      data[at + 8 + length + static_cast<std::size_t>(i)] = static_cast<std::uint8_t>(sum >> (24 - 8 * i));
    at += length + kChunkFrame;
  }
}

std::string bytes_of(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

}  // namespace

extern "C" std::size_t LLVMFuzzerCustomMutator(std::uint8_t* data, std::size_t size, std::size_t max_size,
                                               unsigned seed) {
  size = LLVMFuzzerMutate(data, size, max_size);
  if (seed % 4 != 0) repair_checksums(data, size);
  return size;
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  Pixels pixels;
  if (!fuzz::accepts([&] { pixels = diffusion::decode_png(fuzz::text_of(data, size), "image.png"); })) return 0;
  fuzz::require(pixels.channels == 1 || pixels.channels == 3, "an image is grey or colour");
  fuzz::require(pixels.height > 0 && pixels.width > 0, "an image has pixels");
  fuzz::require(pixels.bytes.size() == static_cast<std::size_t>(pixels.height * pixels.width * pixels.channels),
                "an image is as large as it says");
  if (pixels.height * pixels.width > kWrittenPixels) return 0;
  const auto file = fuzz::scratch_folder() / "image.png";
  diffusion::write_png_file(file, pixels.height, pixels.width, pixels.channels, pixels.bytes);
  fuzz::require(diffusion::decode_png(bytes_of(file), "written").bytes == pixels.bytes,
                "an image written and read again is the same");
  return 0;
}
