// Shapes: B batch, C channels in, O channels out, H, W image. A tile is 2x2 pixels of the output, from 4x4 of the
// input.
#include "unet/cpu_winograd.h"

#include <ATen/Parallel.h>
#include <ATen/native/CPUBlas.h>
#include <ATen/ops/empty.h>

#include <algorithm>
#include <vector>

#include "unet/cpu_brgemm.h"
#include "unet/cpu_loops.h"

namespace laptopdiff::unet {
namespace {

namespace blas = at::native::cpublas;
using Raw = std::uint16_t;

constexpr std::int64_t kPlaces = 16;  // in a tile
// A product's block: with its share of pixels and weights it fits a core's second-level cache.
constexpr std::int64_t kTiles = 64, kOut = 64;
// Of sums of pixels at a time: they go from one pass to the next through the third-level cache.
constexpr std::int64_t kBufferBytes = 8 << 20;

std::int64_t blocks(std::int64_t count, std::int64_t size) { return (count + size - 1) / size; }

// (a, b, c, d) -> B^T (a, b, c, d).
[[gnu::always_inline]] inline void combine(Floats& a, Floats& b, Floats& c, Floats& d) {
  const Floats sum = b + c, difference = c - b;
  a = a - c;
  d = b - d;
  b = sum;
  c = difference;
}

// pixels [4 * 4][C] -> [4 * 4][C], `stride` apart.
LAPTOPDIFF_CLONES void transform_pixels(const Raw* const* pixels, std::int64_t channels, Raw* to, std::int64_t stride) {
  for (std::int64_t c = 0; c < channels; c += kLanes) {
    Floats d[4][4];
    for (int y = 0; y < 4; ++y) {
      for (int x = 0; x < 4; ++x) load(pixels[4 * y + x] + c, d[y][x]);
      combine(d[y][0], d[y][1], d[y][2], d[y][3]);
    }
    for (int x = 0; x < 4; ++x) combine(d[0][x], d[1][x], d[2][x], d[3][x]);
    for (int y = 0; y < 4; ++y) {
      for (int x = 0; x < 4; ++x) store(d[y][x], to + (4 * y + x) * stride + c);
    }
  }
}

// Where a pixel of the output is written, and what is added to it; null for none.
struct Target {
  Raw* pixel;
  const Raw* residual;
};

// products [4 * 4][kOut] of one tile, `stride` apart -> A^T products A + bias, in its four pixels.
LAPTOPDIFF_CLONES void transform_products(const float* products, std::int64_t stride, const float* bias,
                                          const Target* targets) {
  for (std::int64_t c = 0; c < kOut; c += kLanes) {
    Floats rows[2][4], shift;
    load(bias + c, shift);
    for (int x = 0; x < 4; ++x) {
      Floats m[4];
      for (int y = 0; y < 4; ++y) load(products + (4 * y + x) * stride + c, m[y]);
      rows[0][x] = m[0] + m[1] + m[2];
      rows[1][x] = m[1] - m[2] - m[3];
    }
    for (int i = 0; i < 4; ++i) {
      if (targets[i].pixel == nullptr) continue;
      const Floats* m = rows[i / 2];
      Floats pixel = (i % 2 == 0 ? m[0] + m[1] + m[2] : m[1] - m[2] - m[3]) + shift, added;
      if (targets[i].residual != nullptr) {
        load(targets[i].residual + c, added);
        pixel += added;
      }
      store(pixel, targets[i].pixel + c);
    }
  }
}

// (a, b, c) -> G (a, b, c).
[[gnu::always_inline]] inline void spread(const Floats& a, const Floats& b, const Floats& c, Floats (&to)[4]) {
  to[0] = a;
  to[1] = (a + b + c) * 0.5F;
  to[2] = (a - b + c) * 0.5F;
  to[3] = c;
}

constexpr std::int64_t kPair = 2 * kOut;  // weights of two channels in: what the products read side by side

// kernels [3 * 3][kPair] -> [4 * 4][kPair], `stride` apart.
LAPTOPDIFF_CLONES void transform_kernels(const Raw* kernels, Raw* to, std::int64_t stride) {
  for (std::int64_t i = 0; i < kPair; i += kLanes) {
    Floats columns[3][4];
    for (int x = 0; x < 3; ++x) {
      Floats g[3];
      for (int y = 0; y < 3; ++y) load(kernels + (3 * y + x) * kPair + i, g[y]);
      spread(g[0], g[1], g[2], columns[x]);
    }
    for (int y = 0; y < 4; ++y) {
      Floats row[4];
      spread(columns[0][y], columns[1][y], columns[2][y], row);
      for (int x = 0; x < 4; ++x) store(row[x], to + (4 * y + x) * stride + i);
    }
  }
}

const Raw* raw(const at::Tensor& tensor) {
  return tensor.defined() ? reinterpret_cast<const Raw*>(tensor.const_data_ptr<at::BFloat16>()) : nullptr;
}

// One sample, a buffer of tiles after another.
class Convolution {
 public:
  Convolution(const at::Tensor& image, const at::Tensor& packed, const at::Tensor& bias)
      : in_(image.size(1)),
        height_(image.size(2)),
        width_(image.size(3)),
        across_(blocks(width_, 2)),
        tiles_(across_ * blocks(height_, 2)),
        out_blocks_(packed.size(1)),
        weights_(packed.const_data_ptr<at::BFloat16>()),
        bias_(static_cast<std::size_t>(out_blocks_ * kOut), 0.0F),
        outside_(static_cast<std::size_t>(in_), Raw{0}) {
    const std::int64_t room = std::max<std::int64_t>(2, kBufferBytes / (kPlaces * in_ * 2 * kTiles)) * kTiles;
    buffer_ = at::empty({kPlaces, std::min(tiles_, room), in_}, image.options());
    for (std::size_t i = 0; bias.defined() && i < bias_.size(); ++i) bias_[i] = bias.const_data_ptr<at::BFloat16>()[i];
  }

  // x [H, W, C], residual and y [H, W, O].
  void run(const Raw* x, const Raw* residual, Raw* y) {
    for (std::int64_t first = 0; first < tiles_; first += buffer_.size(1)) {
      const std::int64_t count = std::min(buffer_.size(1), tiles_ - first);
      gather(x, first, count);
      at::parallel_for(0, blocks(count, kTiles) * out_blocks_, 1, [&](std::int64_t from, std::int64_t to) {
        std::vector<float> products(static_cast<std::size_t>(kPlaces * kTiles * kOut));
        for (std::int64_t task = from; task < to; ++task) {
          const std::int64_t begin = task / out_blocks_ * kTiles;
          multiply(begin, std::min(kTiles, count - begin), task % out_blocks_, first, products.data(), residual, y);
        }
        blas::brgemm_release(true);
      });
    }
  }

 private:
  // The buffer's sums of pixels of `count` tiles: [16, room, C].
  void gather(const Raw* x, std::int64_t first, std::int64_t count) {
    auto* sums = reinterpret_cast<Raw*>(buffer_.mutable_data_ptr<at::BFloat16>());
    at::parallel_for(0, count, 8, [&](std::int64_t from, std::int64_t to) {
      for (std::int64_t tile = from; tile < to; ++tile) {
        const std::int64_t top = (first + tile) / across_ * 2 - 1, left = (first + tile) % across_ * 2 - 1;
        const Raw* pixels[kPlaces];
        for (std::int64_t i = 0; i < kPlaces; ++i) {
          const std::int64_t row = top + i / 4, column = left + i % 4;
          const bool inside = row >= 0 && row < height_ && column >= 0 && column < width_;
          pixels[i] = inside ? x + (row * width_ + column) * in_ : outside_.data();
        }
        transform_pixels(pixels, in_, sums + tile * in_, buffer_.size(1) * in_);
      }
    });
  }

  // `rows` tiles of the buffer from `begin` on, 64 channels of the output.
  void multiply(std::int64_t begin, std::int64_t rows, std::int64_t out_block, std::int64_t first, float* products,
                const Raw* residual, Raw* y) const {
    const auto* sums = buffer_.const_data_ptr<at::BFloat16>();
    for (std::int64_t place = 0; place < kPlaces; ++place) {
      blas::brgemm(rows, kOut, in_, in_, kOut, kOut, false, sums + (place * buffer_.size(1) + begin) * in_,
                   weights_ + (place * out_blocks_ + out_block) * in_ * kOut, products + place * kTiles * kOut, true);
    }
    for (std::int64_t tile = 0; tile < rows; ++tile) {
      const std::int64_t which = first + begin + tile, top = which / across_ * 2, left = which % across_ * 2;
      Target targets[4];
      for (std::int64_t i = 0; i < 4; ++i) {
        const std::int64_t row = top + i / 2, column = left + i % 2;
        const std::int64_t at = ((row * width_ + column) * out_blocks_ + out_block) * kOut;
        const bool inside = row < height_ && column < width_;
        targets[i] = {inside ? y + at : nullptr, inside && residual != nullptr ? residual + at : nullptr};
      }
      transform_products(products + tile * kOut, kTiles * kOut, bias_.data() + out_block * kOut, targets);
    }
  }

  std::int64_t in_, height_, width_, across_, tiles_, out_blocks_;
  const at::BFloat16* weights_;
  std::vector<float> bias_;   // [O]
  std::vector<Raw> outside_;  // a pixel of zeros
  at::Tensor buffer_;
};

}  // namespace

bool has_winograd(const at::Tensor& kernel) {
  return kernel.scalar_type() == at::kBFloat16 && kernel.dim() == 4 && kernel.size(2) == 3 && kernel.size(3) == 3 &&
         kernel.size(0) % kOut == 0 && kernel.size(1) % kLanes == 0 && has_brgemm(at::kBFloat16);
}

at::Tensor pack_winograd(const at::Tensor& kernel) {
  const std::int64_t out = kernel.size(0), in = kernel.size(1);
  const at::Tensor plain = kernel.contiguous();
  at::Tensor packed = at::empty({kPlaces, out / kOut, in / 2, kOut, 2}, kernel.options());
  const Raw* from = raw(plain);
  auto* to = reinterpret_cast<Raw*>(packed.mutable_data_ptr<at::BFloat16>());
  at::parallel_for(0, out * in / kPair, 64, [&](std::int64_t first, std::int64_t last) {
    for (std::int64_t pair = first; pair < last; ++pair) {  // of a block of channels out and two channels in
      const Raw* own = from + (pair / (in / 2) * kOut * in + pair % (in / 2) * 2) * 9;
      Raw kernels[9 * kPair];
      for (std::int64_t i = 0; i < kPair; ++i) {
        for (std::int64_t at = 0; at < 9; ++at) kernels[at * kPair + i] = own[(i / 2 * in + i % 2) * 9 + at];
      }
      transform_kernels(kernels, to + pair * kPair, out * in);
    }
  });
  return packed;
}

at::Tensor cpu_winograd(const at::Tensor& image, const at::Tensor& packed, const at::Tensor& bias,
                        const at::Tensor& residual) {
  TORCH_CHECK(image.dim() == 4 && packed.dim() == 5 && image.size(1) == 2 * packed.size(2), "cpu_winograd: image is ",
              image.sizes(), ", packed kernel ", packed.sizes());
  constexpr auto kLast = at::MemoryFormat::ChannelsLast;
  const at::Tensor dense = image.contiguous(kLast), added = residual.defined() ? residual.contiguous(kLast) : residual;
  at::Tensor out =
      at::empty({image.size(0), packed.size(1) * kOut, image.size(2), image.size(3)}, image.options(), kLast);
  Convolution convolution(dense, packed, bias);
  const std::int64_t pixels = image.size(2) * image.size(3), in_size = pixels * image.size(1),
                     out_size = pixels * out.size(1);
  for (std::int64_t b = 0; b < image.size(0); ++b) {
    convolution.run(raw(dense) + b * in_size, added.defined() ? raw(added) + b * out_size : nullptr,
                    reinterpret_cast<Raw*>(out.mutable_data_ptr<at::BFloat16>()) + b * out_size);
  }
  return out;
}

}  // namespace laptopdiff::unet
