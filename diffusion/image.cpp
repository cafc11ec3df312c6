#include "diffusion/image.h"

#include <png.h>
#include <torch/types.h>

#include <csetjmp>
#include <cstring>
#include <string>
#include <vector>

#include "runtime/error.h"
#include "runtime/file.h"

namespace laptopdiff::diffusion {
namespace fs = std::filesystem;

namespace {

constexpr std::uint64_t kMaxPngBytes = std::uint64_t{1} << 30;

// A PNG file in memory under libpng's row interface. (Its simplified interface would bend the values of 16-bit files
// and of files with a gAMA chunk by a gamma curve, which no other reader of data sets does.)
//
// libpng reports errors by a long jump. All that needs a destructor therefore lives in this object, outside of the two
// functions that are jumped out of; each of them returns false after a jump.
class PngReader {
 public:
  explicit PngReader(const std::string& bytes) : bytes_(bytes) {
    png_ = png_create_read_struct(PNG_LIBPNG_VER_STRING, this, on_error, [](png_structp, png_const_charp) {});
    if (png_ != nullptr) info_ = png_create_info_struct(png_);
    if (info_ == nullptr) throw runtime::resource_error("libpng: out of memory");
    png_set_read_fn(png_, this, on_read);
    png_set_user_limits(png_, kNoLimit, kNoLimit);  // check_bounds says it better
  }
  ~PngReader() { png_destroy_read_struct(&png_, &info_, nullptr); }
  PngReader(const PngReader&) = delete;
  PngReader& operator=(const PngReader&) = delete;

  bool read_header() {
    if (setjmp(png_jmpbuf(png_))) return false;
    png_read_info(png_, info_);
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

  const std::string& bytes_;
  std::size_t position_ = 0;
  png_structp png_ = nullptr;
  png_infop info_ = nullptr;
  char message_[256] = {};
};

void check_bounds(const PngReader& png, const fs::path& path) {
  const std::int64_t width = png.width(), height = png.height();
  if (width > kMaxImageSide || height > kMaxImageSide || width * height > kMaxImagePixels) {
    throw runtime::input_error(path.string(), ": image of ", width, " x ", height, " is too large; at most ",
                               kMaxImageSide, " a side and ", kMaxImagePixels, " pixels are read");
  }
}

}  // namespace

at::Tensor read_png(const fs::path& path) {
  const std::string bytes = runtime::read_file(path, kMaxPngBytes);
  PngReader png(bytes);
  const auto fail = [&] { return runtime::input_error(path.string(), ": not a whole PNG image: ", png.message()); };
  if (!png.read_header()) throw fail();
  check_bounds(png, path);
  at::Tensor pixels = at::empty({png.height(), png.width(), png.channels()}, at::kByte);
  TORCH_CHECK(png.row_bytes() == static_cast<std::size_t>(pixels.stride(0)), "read_png: unexpected row size");
  std::vector<png_bytep> rows;
  for (std::int64_t y = 0; y < pixels.size(0); ++y)
    rows.push_back(pixels.data_ptr<std::uint8_t>() + y * pixels.stride(0));
  if (!png.read_rows(rows.data())) throw fail();
  return pixels;
}

void write_png(const fs::path& path, const at::Tensor& image) {
  TORCH_CHECK(image.dim() == 3 && image.scalar_type() == at::kByte && (image.size(2) == 3 || image.size(2) == 1),
              "write_png: expected U8 [H, W, 3 or 1], got ", image.sizes(), " ", image.scalar_type());
  const at::Tensor pixels = image.cpu().contiguous();
  png_image png{};
  png.version = PNG_IMAGE_VERSION;
  png.height = static_cast<png_uint_32>(pixels.size(0));
  png.width = static_cast<png_uint_32>(pixels.size(1));
  png.format = pixels.size(2) == 3 ? PNG_FORMAT_RGB : PNG_FORMAT_GRAY;
  runtime::write_file_via(path, [&](const fs::path& temporary) {
    if (!png_image_write_to_file(&png, temporary.c_str(), 0, pixels.const_data_ptr(), 0, nullptr)) {
      throw runtime::resource_error(path.string(), ": cannot be written: ", png.message);
    }
  });
}

at::Tensor to_u8(const at::Tensor& decoded) {
  const at::Tensor unit = (decoded.to(at::kFloat) / 2 + 0.5).clamp(0, 1);
  return (unit * 255).round().to(at::kByte).permute({0, 2, 3, 1}).contiguous();
}

at::Tensor from_u8(const at::Tensor& images) {
  const at::Tensor unit = images.to(at::kFloat) / 127.5 - 1;
  return images.dim() == 3 ? unit.permute({2, 0, 1}).contiguous() : unit.permute({0, 3, 1, 2}).contiguous();
}

}  // namespace laptopdiff::diffusion
