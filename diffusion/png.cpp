#include "diffusion/png.h"

#include <png.h>

#include <csetjmp>
#include <cstring>

#include "runtime/error.h"
#include "runtime/file.h"

namespace laptopdiff::diffusion {
namespace {

// Deflate makes at most this many bytes of one.
constexpr std::uint64_t kMaxDeflateRatio = 1032;

// A PNG file in memory under libpng's row interface. (Its simplified interface would bend the values of 16-bit files
// and of files with a gAMA chunk by a gamma curve, which no other reader of data sets does.)
//
// libpng reports errors by a long jump. All that needs a destructor therefore lives in this object, outside of the
// functions that are jumped out of; each of them returns false after a jump.
class PngReader {
 public:
  explicit PngReader(std::string_view bytes) : bytes_(bytes) {
    png_ = png_create_read_struct(PNG_LIBPNG_VER_STRING, this, on_error, [](png_structp, png_const_charp) {});
    if (png_ != nullptr) info_ = png_create_info_struct(png_);
    if (info_ == nullptr) {
      png_destroy_read_struct(&png_, nullptr, nullptr);
      throw runtime::resource_error("libpng: out of memory");
    }
    png_set_read_fn(png_, this, on_read);
    png_set_user_limits(png_, kNoLimit, kNoLimit);  // check_bounds says it better
    // Texts, profiles and the like are skipped: libpng would take the memory that a chunk claims before it reads it.
    png_set_keep_unknown_chunks(png_, PNG_HANDLE_CHUNK_NEVER, nullptr, kAllButPixels);
  }
  ~PngReader() { png_destroy_read_struct(&png_, &info_, nullptr); }
  PngReader(const PngReader&) = delete;
  PngReader& operator=(const PngReader&) = delete;

  bool read_header() {
    if (setjmp(png_jmpbuf(png_))) return false;
    png_read_info(png_, info_);
    return true;
  }
  // From here on libpng holds rows of the image's width, so its size must have been checked.
  bool start_rows() {
    if (setjmp(png_jmpbuf(png_))) return false;
    png_set_expand(png_);
    png_set_strip_16(png_);
    // Dropped, not blended: transparent pixels keep their colour, as in other readers.
    png_set_strip_alpha(png_);
    png_set_interlace_handling(png_);
    png_read_update_info(png_, info_);
    return true;
  }
  bool read_rows(png_bytepp rows) {
    if (setjmp(png_jmpbuf(png_))) return false;
    png_read_image(png_, rows);
    png_read_end(png_, nullptr);
    return true;
  }

  std::int64_t width() const { return png_get_image_width(png_, info_); }
  std::int64_t height() const { return png_get_image_height(png_, info_); }
  std::int64_t channels() const { return png_get_channels(png_, info_); }
  std::size_t row_bytes() const { return png_get_rowbytes(png_, info_); }
  const char* message() const { return message_; }

 private:
  static constexpr png_uint_32 kNoLimit = 0x7fffffff;
  static constexpr int kAllButPixels = -1;  // libpng's word for all chunks but IHDR, PLTE, tRNS, IDAT and IEND

  [[noreturn]] static void on_error(png_structp png, png_const_charp message) {
    auto* self = static_cast<PngReader*>(png_get_error_ptr(png));
    std::strncpy(self->message_, message, sizeof(self->message_) - 1);
    png_longjmp(png, 1);
  }
  static void on_read(png_structp png, png_bytep out, std::size_t count) {
    auto* self = static_cast<PngReader*>(png_get_io_ptr(png));
    if (self->bytes_.size() - self->position_ < count) png_error(png, "the file ends early");
    std::memcpy(out, self->bytes_.data() + self->position_, count);
    self->position_ += count;
  }

  std::string_view bytes_;
  std::size_t position_ = 0;
  png_structp png_ = nullptr;
  png_infop info_ = nullptr;
  char message_[256] = {};
};

// Between header and rows: row_bytes() is still that of the rows in the file.
void check_bounds(const PngReader& png, std::size_t file_bytes, const std::string& where) {
  const std::int64_t width = png.width(), height = png.height();
  if (width > kMaxImageSide || height > kMaxImageSide || width * height > kMaxImagePixels) {
    throw runtime::input_error(where, ": image of ", width, " x ", height, " is too large; at most ", kMaxImageSide,
                               " a side and ", kMaxImagePixels, " pixels are read");
  }
  if (png.row_bytes() * static_cast<std::uint64_t>(height) / kMaxDeflateRatio > file_bytes) {
    throw runtime::input_error(where, ": not a whole PNG image: ", file_bytes, " bytes cannot hold ", width, " x ",
                               height, " pixels");
  }
}

}  // namespace

Pixels decode_png(std::string_view file, const std::string& where) {
  PngReader png(file);
  const auto fail = [&] { return runtime::input_error(where, ": not a whole PNG image: ", png.message()); };
  if (!png.read_header()) throw fail();
  check_bounds(png, file.size(), where);
  if (!png.start_rows()) throw fail();
  Pixels pixels{png.height(), png.width(), png.channels(), {}};
  if (png.row_bytes() != static_cast<std::size_t>(pixels.width * pixels.channels)) {
    throw runtime::input_error(where, ": rows of ", png.row_bytes(), " bytes for ", pixels.width, " pixels");
  }
  pixels.bytes.resize(static_cast<std::size_t>(pixels.height) * png.row_bytes());
  std::vector<png_bytep> rows;
  for (std::int64_t y = 0; y < pixels.height; ++y)
    rows.push_back(pixels.bytes.data() + static_cast<std::size_t>(y) * png.row_bytes());
  if (!png.read_rows(rows.data())) throw fail();
  return pixels;
}

void write_png_file(const std::filesystem::path& path, std::int64_t height, std::int64_t width, std::int64_t channels,
                    std::span<const std::uint8_t> bytes) {
  png_image png{};
  png.version = PNG_IMAGE_VERSION;
  png.height = static_cast<png_uint_32>(height);
  png.width = static_cast<png_uint_32>(width);
  png.format = channels == 3 ? PNG_FORMAT_RGB : PNG_FORMAT_GRAY;
  runtime::write_file_via(path, [&](const std::filesystem::path& temporary) {
    if (!png_image_write_to_file(&png, temporary.c_str(), 0, bytes.data(), 0, nullptr)) {
      throw runtime::resource_error(path.string(), ": cannot be written: ", png.message);
    }
  });
}

}  // namespace laptopdiff::diffusion
