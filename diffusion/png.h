// PNG files to pixels and back. Knows no torch.
#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace laptopdiff::diffusion {

inline constexpr std::int64_t kMaxImageSide = 16384;
inline constexpr std::int64_t kMaxImagePixels = std::int64_t{1} << 26;

// Rows from the top, channels last: `bytes` is [height, width, channels], 1 channel (grey) or 3 (colour).
struct Pixels {
  std::int64_t height = 0, width = 0, channels = 0;
  std::vector<std::uint8_t> bytes;
};

// The pixels of a PNG file's bytes. Palettes are expanded, 16 bits cut to 8, transparency dropped, no gamma. `where`
// names the file in errors. Throws Error(bad_input) for bytes that are not PNG, truncated or damaged, and, before it
// takes memory for them, for sides and areas over the bounds and for more pixels than so short a file can hold.
Pixels decode_png(std::string_view file, const std::string& where);

// Writes `bytes` [height, width, channels] as decode_png gives them, whole or not at all. Throws Error(resources).
void write_png_file(const std::filesystem::path& path, std::int64_t height, std::int64_t width, std::int64_t channels,
                    std::span<const std::uint8_t> bytes);

}  // namespace laptopdiff::diffusion
