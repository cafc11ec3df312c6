#include "diffusion/image.h"

#include <torch/types.h>

#include <memory>

#include "runtime/file.h"

namespace laptopdiff::diffusion {
namespace fs = std::filesystem;

namespace {
constexpr std::uint64_t kMaxPngBytes = std::uint64_t{1} << 30;
}

at::Tensor read_png(const fs::path& path) {
  auto pixels = std::make_shared<Pixels>(decode_png(runtime::read_file(path, kMaxPngBytes), path.string()));
  void* data = pixels->bytes.data();
  const std::int64_t sizes[] = {pixels->height, pixels->width, pixels->channels};
  return at::from_blob(
      data, sizes, [pixels = std::move(pixels)](void*) {}, at::kByte);
}

void write_png(const fs::path& path, const at::Tensor& image) {
  TORCH_CHECK(image.dim() == 3 && image.scalar_type() == at::kByte && (image.size(2) == 3 || image.size(2) == 1),
              "write_png: expected U8 [H, W, 3 or 1], got ", image.sizes(), " ", image.scalar_type());
  const at::Tensor pixels = image.cpu().contiguous();
  write_png_file(path, pixels.size(0), pixels.size(1), pixels.size(2),
                 {pixels.const_data_ptr<std::uint8_t>(), pixels.nbytes()});
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
