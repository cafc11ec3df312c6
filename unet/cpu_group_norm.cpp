// Shapes: B batch, C channels, H, W image; a pixel is one row of C elements.
#include "unet/cpu_group_norm.h"

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>

#include <cmath>
#include <vector>

#include "unet/cpu_loops.h"

namespace laptopdiff::unet {
namespace {

constexpr std::int64_t kPixels = 128;  // a block: sums over it stay exact enough in f32

// sums[c] = sum over pixels of x[c] - centre[c], or of its square.
template <typename Raw>
[[gnu::always_inline]] inline void sum_block(const Raw* x, std::int64_t pixels, std::int64_t channels,
                                             const float* centre, bool squares, float* sums) {
  for (std::int64_t c = 0; c < channels; ++c) sums[c] = 0;
  for (std::int64_t pixel = 0; pixel < pixels; ++pixel, x += channels) {
    if (squares) {
#pragma omp simd
      for (std::int64_t c = 0; c < channels; ++c) {
        const float d = load(x[c]) - centre[c];
        sums[c] += d * d;
      }
    } else {
#pragma omp simd
      for (std::int64_t c = 0; c < channels; ++c) sums[c] += load(x[c]) - centre[c];
    }
  }
}
LAPTOPDIFF_CLONES void sum_pixels(const float* x, std::int64_t pixels, std::int64_t channels, const float* centre,
                                  bool squares, float* sums) {
  sum_block(x, pixels, channels, centre, squares, sums);
}
LAPTOPDIFF_CLONES void sum_pixels(const std::uint16_t* x, std::int64_t pixels, std::int64_t channels,
                                  const float* centre, bool squares, float* sums) {
  sum_block(x, pixels, channels, centre, squares, sums);
}

// y = (x - centre) * factor + offset, through SiLU where asked. Centred first: x * factor may be large beside y.
template <typename Raw>
[[gnu::always_inline]] inline void write_block(const Raw* x, std::int64_t pixels, std::int64_t channels,
                                               const float* centre, const float* factor, const float* offset, bool silu,
                                               Raw* y) {
  for (std::int64_t pixel = 0; pixel < pixels; ++pixel, x += channels, y += channels) {
    if (silu) {
#pragma omp simd
      for (std::int64_t c = 0; c < channels; ++c) {
        const float value = (load(x[c]) - centre[c]) * factor[c] + offset[c];
        store(value / (1.0F + fast_exp2(value * -kLog2E)), y[c]);
      }
    } else {
#pragma omp simd
      for (std::int64_t c = 0; c < channels; ++c) store((load(x[c]) - centre[c]) * factor[c] + offset[c], y[c]);
    }
  }
}
LAPTOPDIFF_CLONES void write_pixels(const float* x, std::int64_t pixels, std::int64_t channels, const float* centre,
                                    const float* factor, const float* offset, bool silu, float* y) {
  write_block(x, pixels, channels, centre, factor, offset, silu, y);
}
LAPTOPDIFF_CLONES void write_pixels(const std::uint16_t* x, std::int64_t pixels, std::int64_t channels,
                                    const float* centre, const float* factor, const float* offset, bool silu,
                                    std::uint16_t* y) {
  write_block(x, pixels, channels, centre, factor, offset, silu, y);
}

// Row b of a [B, C] tensor, or of a [C] one, as floats; zeros where it is not given.
template <typename T>
std::vector<float> row_of(const at::Tensor& tensor, std::int64_t sample, std::int64_t channels, float otherwise) {
  std::vector<float> row(static_cast<std::size_t>(channels), otherwise);
  if (!tensor.defined()) return row;
  const at::Tensor own = tensor.dim() == 2 ? tensor.select(0, sample) : tensor;
  const T* values = own.const_data_ptr<T>();
  for (std::int64_t c = 0; c < channels; ++c)
    row[static_cast<std::size_t>(c)] = static_cast<float>(values[c * own.stride(0)]);
  return row;
}

template <typename T>
class Normalizer {
 public:
  Normalizer(const at::Tensor& image, const GroupNorm& norm)
      : norm_(norm),
        batch_(image.size(0)),
        channels_(image.size(1)),
        pixels_(image.size(2) * image.size(3)),
        blocks_((pixels_ + kPixels - 1) / kPixels),
        x_(reinterpret_cast<const RawOf<T>*>(image.const_data_ptr<T>())),
        sums_(static_cast<std::size_t>(batch_ * blocks_ * channels_)) {}

  void run(at::Tensor& out) {
    const auto size = static_cast<std::size_t>(batch_ * channels_);
    std::vector<float> added, factor(size), offset(size);
    for (std::int64_t b = 0; b < batch_; ++b) {
      const std::vector<float> row = row_of<T>(norm_.add, b, channels_, 0);
      added.insert(added.end(), row.begin(), row.end());
    }
    // The mean first, then squares around it: one pass would cancel where the mean is large beside the spread.
    std::vector<float> centre(size);
    for (std::size_t i = 0; i < size; ++i) centre[i] = -added[i];
    const std::vector<double> means = group_means(centre, false);
    for (std::size_t i = 0; i < size; ++i) centre[i] = static_cast<float>(means[group_of(i)]) - added[i];
    const std::vector<double> variances = group_means(centre, true);
    for (std::int64_t b = 0; b < batch_; ++b) {
      const auto gain = row_of<T>(norm_.gain, b, channels_, 1), bias = row_of<T>(norm_.bias, b, channels_, 0);
      const auto scale = row_of<T>(norm_.scale, b, channels_, 0), shift = row_of<T>(norm_.shift, b, channels_, 0);
      for (std::size_t c = 0; c < gain.size(); ++c) {
        const std::size_t i = static_cast<std::size_t>(b * channels_) + c;
        const double own = gain[c] / std::sqrt(variances[group_of(i)] + norm_.eps);
        factor[i] = static_cast<float>(own * (1 + scale[c]));
        offset[i] = bias[c] * (1 + scale[c]) + shift[c];
      }
    }
    auto* y = reinterpret_cast<RawOf<T>*>(out.mutable_data_ptr<T>());
    each_block([&](std::int64_t block, std::int64_t sample, std::int64_t first, std::int64_t count) {
      const std::int64_t at = (sample * pixels_ + first) * channels_;
      const std::int64_t row = sample * channels_;
      write_pixels(x_ + at, count, channels_, centre.data() + row, factor.data() + row, offset.data() + row, norm_.silu,
                   y + at);
    });
  }

 private:
  std::size_t group_of(std::size_t channel) const {  // of a sample's channel, counted over the batch
    return channel / static_cast<std::size_t>(channels_ / norm_.groups);
  }

  template <typename F>
  void each_block(const F& work) const {
    at::parallel_for(0, batch_ * blocks_, 1, [&](std::int64_t from, std::int64_t to) {
      for (std::int64_t block = from; block < to; ++block) {
        const std::int64_t first = block % blocks_ * kPixels;
        work(block, block / blocks_, first, std::min(kPixels, pixels_ - first));
      }
    });
  }

  // Mean over each group of x - centre, or of its square.
  std::vector<double> group_means(const std::vector<float>& centre, bool squares) {
    each_block([&](std::int64_t block, std::int64_t sample, std::int64_t first, std::int64_t count) {
      sum_pixels(x_ + (sample * pixels_ + first) * channels_, count, channels_, centre.data() + sample * channels_,
                 squares, sums_.data() + block * channels_);
    });
    std::vector<double> means(static_cast<std::size_t>(batch_ * norm_.groups), 0.0);
    for (std::int64_t block = 0; block < batch_ * blocks_; ++block) {
      for (std::int64_t c = 0; c < channels_; ++c)
        means[group_of(static_cast<std::size_t>(block / blocks_ * channels_ + c))] +=
            sums_[static_cast<std::size_t>(block * channels_ + c)];
    }
    for (double& mean : means) mean /= static_cast<double>(pixels_ * (channels_ / norm_.groups));
    return means;
  }

  const GroupNorm& norm_;
  std::int64_t batch_, channels_, pixels_, blocks_;
  const RawOf<T>* x_;
  std::vector<float> sums_;  // [B * blocks, C]
};

}  // namespace

at::Tensor cpu_group_norm(const at::Tensor& image, const GroupNorm& norm) {
  TORCH_CHECK(image.dim() == 4 && image.size(1) % norm.groups == 0, "cpu_group_norm: image is ", image.sizes(), " for ",
              norm.groups, " groups");
  const at::Tensor dense = image.contiguous(at::MemoryFormat::ChannelsLast);
  at::Tensor out = at::empty(dense.sizes(), dense.options(), at::MemoryFormat::ChannelsLast);
  if (image.scalar_type() == at::kFloat) Normalizer<float>(dense, norm).run(out);
  else Normalizer<at::BFloat16>(dense, norm).run(out);
  return out;
}

}  // namespace laptopdiff::unet
