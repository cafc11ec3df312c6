#include "diffusion/tiles.h"

#include <torch/types.h>

#include <algorithm>
#include <vector>

#include "runtime/error.h"

namespace laptopdiff::diffusion {
namespace {

constexpr std::int64_t kRows = 2, kColumns = 3;  // axes

at::Tensor cut(const at::Tensor& image, std::int64_t axis, std::int64_t first, std::int64_t count) {
  return image.narrow(axis, first, std::min(count, image.size(axis) - first));
}

// Fades from the end of `before` to the beginning of `tile`, which is changed.
void blend(const at::Tensor& before, const at::Tensor& tile, std::int64_t axis, std::int64_t extent) {
  extent = std::min({before.size(axis), tile.size(axis), extent});
  std::vector<std::int64_t> shape(4, 1);
  shape[static_cast<std::size_t>(axis)] = extent;
  const at::Tensor weight = (at::arange(extent, tile.options()) / static_cast<double>(extent)).view(shape);
  const at::Tensor end = before.narrow(axis, before.size(axis) - extent, extent);
  at::Tensor beginning = tile.narrow(axis, 0, extent);
  beginning.copy_(end * (1 - weight) + beginning * weight);
}

}  // namespace

at::Tensor run_tiled(const at::Tensor& image, TileShape tile, const std::function<at::Tensor(const at::Tensor&)>& run) {
  const std::int64_t stride = tile.in * 3 / 4, extent = tile.out / 4, kept = tile.out - extent;
  if (stride < 1 || extent < 1) {
    throw runtime::input_error("tiling: tiles of ", tile.in, " in, ", tile.out,
                               " out are too small to overlap; is the VAE's `sample_size` right?");
  }
  std::vector<at::Tensor> rows, above;
  for (std::int64_t top = 0; top < image.size(kRows); top += stride) {
    std::vector<at::Tensor> row, cropped;
    for (std::int64_t left = 0; left < image.size(kColumns); left += stride) {
      const at::Tensor part = cut(cut(image, kRows, top, tile.in), kColumns, left, tile.in);
      const at::Tensor done = run(part);
      if (!above.empty()) blend(above[row.size()], done, kRows, extent);
      if (!row.empty()) blend(row.back(), done, kColumns, extent);
      row.push_back(done);
      cropped.push_back(cut(cut(done, kRows, 0, kept), kColumns, 0, kept));
    }
    rows.push_back(at::cat(cropped, kColumns));
    above = std::move(row);
  }
  return at::cat(rows, kRows);
}

}  // namespace laptopdiff::diffusion
