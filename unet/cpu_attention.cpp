// Shapes: B batch, N queries, T keys, D head width. A lane is one (sample, head).
#include "unet/cpu_attention.h"

#include <ATen/Parallel.h>
#include <ATen/native/CPUBlas.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/ones.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <type_traits>
#include <vector>

#include "unet/cpu_brgemm.h"
#include "unet/cpu_loops.h"

namespace laptopdiff::unet {
namespace {

namespace blas = at::native::cpublas;

// A block's scores, 64 x 512 floats, and what it is multiplied with fit a core's second-level cache.
constexpr std::int64_t kQueries = 64, kKeys = 512;

// Rows that the matrix kernels read together: two of a 16-bit type.
template <typename T>
constexpr std::int64_t kPack = 4 / sizeof(T);

std::int64_t blocks(std::int64_t count, std::int64_t size) { return (count + size - 1) / size; }

// Of each row: weights = exp(scale * (scores - maximum)), where `scale` is in powers of two. Keeps the running maxima
// and sums; `shrink` is what the sums so far shrink by. Rows are kKeys apart, and read to a multiple of kLanes.
template <typename Raw>
[[gnu::always_inline]] inline void softmax(float* scores, std::int64_t rows, std::int64_t count, float scale,
                                           float* maxima, float* totals, float* shrinks, Raw* weights) {
  constexpr float kNone = -std::numeric_limits<float>::infinity();
  const std::int64_t whole = blocks(count, kLanes) * kLanes;
  for (std::int64_t row = 0; row < rows; ++row, scores += kKeys, weights += kKeys) {
    std::fill(scores + count, scores + whole, kNone);
    Floats largest = Floats{} + maxima[row], x;
    for (std::int64_t i = 0; i < whole; i += kLanes) {
      load(scores + i, x);
      largest = x > largest ? x : largest;
    }
    float maximum = largest[0];
    for (std::int64_t lane = 1; lane < kLanes; ++lane) maximum = largest[lane] > maximum ? largest[lane] : maximum;
    const float shift = maximum * scale;
    Floats sums{};
    for (std::int64_t i = 0; i < whole; i += kLanes) {
      load(scores + i, x);
      x = x * scale - shift;
      fast_exp2<Raw>(x);
      sums += x;
      store(x, weights + i);
    }
    float total = 0;
    for (std::int64_t lane = 0; lane < kLanes; ++lane) total += sums[lane];
    shrinks[row] = maxima[row] == kNone ? 0 : fast_exp2(maxima[row] * scale - shift);
    totals[row] = totals[row] * shrinks[row] + total;
    maxima[row] = maximum;
  }
}
LAPTOPDIFF_CLONES void softmax_rows(float* scores, std::int64_t rows, std::int64_t count, float scale, float* maxima,
                                    float* totals, float* shrinks, float* weights) {
  softmax(scores, rows, count, scale, maxima, totals, shrinks, weights);
}
LAPTOPDIFF_CLONES void softmax_rows(float* scores, std::int64_t rows, std::int64_t count, float scale, float* maxima,
                                    float* totals, float* shrinks, std::uint16_t* weights) {
  softmax(scores, rows, count, scale, maxima, totals, shrinks, weights);
}

LAPTOPDIFF_CLONES void scale_row(float* row, std::int64_t count, float factor) {
#pragma omp simd
  for (std::int64_t i = 0; i < count; ++i) row[i] *= factor;
}

LAPTOPDIFF_CLONES void store_row(const float* row, std::int64_t count, float factor, float* out) {
#pragma omp simd
  for (std::int64_t i = 0; i < count; ++i) out[i] = row[i] * factor;
}
LAPTOPDIFF_CLONES void store_row(const float* row, std::int64_t count, float factor, std::uint16_t* out) {
#pragma omp simd
  for (std::int64_t i = 0; i < count; ++i) store(row[i] * factor, out[i]);
}

// [rows, width] with `stride` between rows -> [width / P][rows][P]: keys as the right operand of Q K^T.
template <typename T>
void pack_keys(const T* from, std::int64_t rows, std::int64_t width, std::int64_t stride, T* to) {
  constexpr std::int64_t P = kPack<T>;
  for (std::int64_t row = 0; row < rows; ++row, from += stride) {
    for (std::int64_t i = 0; i < width; i += P) std::copy_n(from + i, P, to + i * rows + row * P);
  }
}

// [rows, width] -> [rows / P][width][P], a last odd row paired with zeros: values as the right operand.
template <typename T>
void pack_values(const T* from, std::int64_t rows, std::int64_t width, std::int64_t stride, T* to) {
  constexpr std::int64_t P = kPack<T>;
  for (std::int64_t row = 0; row < rows; row += P, to += P * width) {
    for (std::int64_t p = 0; p < P; ++p, from += stride) {
      for (std::int64_t i = 0; i < width; ++i) to[i * P + p] = row + p < rows ? from[i] : T(0);
    }
  }
}

// Keys and values of every lane, block by block as the products take them.
template <typename T>
struct Packed {
  std::int64_t keys, width, lane_size;
  std::vector<T> k, v;

  Packed(const at::Tensor& key, const at::Tensor& value, std::int64_t heads)
      : keys(key.size(1)), width(key.size(2) / heads), lane_size((keys + keys % kPack<T>)*width) {
    const std::int64_t lanes = key.size(0) * heads;
    k.resize(static_cast<std::size_t>(lanes * lane_size));
    v.resize(static_cast<std::size_t>(lanes * lane_size));
    at::parallel_for(0, lanes * blocks(keys, kKeys), 1, [&](std::int64_t from, std::int64_t to) {
      for (std::int64_t task = from; task < to; ++task) {
        const std::int64_t lane = task / blocks(keys, kKeys), first = task % blocks(keys, kKeys) * kKeys;
        const std::int64_t rows = std::min(kKeys, keys - first), sample = lane / heads, head = lane % heads;
        const auto source = [&](const at::Tensor& t) {
          return t.const_data_ptr<T>() + sample * t.stride(0) + first * t.stride(1) + head * width;
        };
        pack_keys(source(key), rows, width, key.stride(1), k.data() + lane * lane_size + first * width);
        pack_values(source(value), rows, width, value.stride(1), v.data() + lane * lane_size + first * width);
      }
    });
  }
};

// Scratch of one thread.
template <typename T>
struct Scratch {
  std::vector<float> scores = std::vector<float>(kQueries * kKeys), sums;
  std::vector<RawOf<T>> weights = std::vector<RawOf<T>>(kQueries * kKeys);
  float maxima[kQueries], totals[kQueries];
};

// `rows` queries against all keys of a lane.
template <typename T>
void attend_block(const T* q, std::int64_t q_stride, std::int64_t rows, const T* k, const T* v, std::int64_t keys,
                  std::int64_t width, T* out, std::int64_t out_stride, Scratch<T>& s) {
  using Raw = RawOf<T>;
  const float scale = kLog2E / std::sqrt(static_cast<float>(width));
  s.sums.assign(static_cast<std::size_t>(kQueries * width), 0);
  std::fill_n(s.maxima, rows, -std::numeric_limits<float>::infinity());
  std::fill_n(s.totals, rows, 0.0F);
  for (std::int64_t first = 0; first < keys; first += kKeys) {
    const std::int64_t count = std::min(kKeys, keys - first), padded = count + count % kPack<T>;
    float* scores = s.scores.data();
    blas::brgemm(rows, count, width, q_stride, count, kKeys, false, q, k + first * width, scores, kPack<T> > 1);
    float shrinks[kQueries];
    softmax_rows(scores, rows, count, scale, s.maxima, s.totals, shrinks, s.weights.data());
    for (std::int64_t row = 0; row < rows; ++row) {
      if (first > 0) scale_row(s.sums.data() + row * width, width, shrinks[row]);
      if (padded > count) s.weights[static_cast<std::size_t>(row * kKeys + count)] = 0;
    }
    blas::brgemm(rows, width, padded, kKeys, width, width, true, reinterpret_cast<const T*>(s.weights.data()),
                 v + first * width, s.sums.data(), kPack<T> > 1);
  }
  for (std::int64_t row = 0; row < rows; ++row)
    store_row(s.sums.data() + row * width, width, 1 / s.totals[row], reinterpret_cast<Raw*>(out + row * out_stride));
}

template <typename T>
void run_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, std::int64_t heads, at::Tensor& out) {
  const Packed<T> packed(k, v, heads);
  const std::int64_t queries = q.size(1), width = packed.width, per_lane = blocks(queries, kQueries);
  T* const results = out.mutable_data_ptr<T>();
  at::parallel_for(0, q.size(0) * heads * per_lane, 1, [&](std::int64_t from, std::int64_t to) {
    Scratch<T> scratch;
    for (std::int64_t task = from; task < to; ++task) {
      const std::int64_t lane = task / per_lane, first = task % per_lane * kQueries;
      const std::int64_t sample = lane / heads, head = lane % heads;
      attend_block(q.const_data_ptr<T>() + sample * q.stride(0) + first * q.stride(1) + head * width, q.stride(1),
                   std::min(kQueries, queries - first), packed.k.data() + lane * packed.lane_size,
                   packed.v.data() + lane * packed.lane_size, packed.keys, width,
                   results + sample * out.stride(0) + first * out.stride(1) + head * width, out.stride(1), scratch);
    }
    blas::brgemm_release(kPack<T> > 1);
  });
}

}  // namespace

bool has_cpu_attention(at::ScalarType dtype, std::int64_t head_width) {
  return has_brgemm(dtype) && (dtype == at::kFloat || head_width % 2 == 0);
}

at::Tensor cpu_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, std::int64_t heads) {
  TORCH_CHECK(q.dim() == 3 && k.dim() == 3 && k.sizes() == v.sizes() && q.size(2) == k.size(2) &&
                  q.size(2) % heads == 0 && q.size(0) == k.size(0) && k.size(1) > 0,
              "cpu_attention: q is ", q.sizes(), ", k ", k.sizes(), ", v ", v.sizes(), " for ", heads, " heads");
  TORCH_CHECK(q.stride(2) == 1 && k.stride(2) == 1 && v.stride(2) == 1, "cpu_attention: channels must be dense");
  at::Tensor out = at::empty(q.sizes(), q.options());
  if (q.scalar_type() == at::kFloat) run_attention<float>(q, k, v, heads, out);
  else run_attention<at::BFloat16>(q, k, v, heads, out);
  return out;
}

}  // namespace laptopdiff::unet
