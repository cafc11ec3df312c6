#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <algorithm>

#include "unet/gpu_kernels.h"

namespace laptopdiff::unet::gpu {
namespace {

using Bf16 = __nv_bfloat16;
using F16 = __half;

constexpr int kWarp = 32;
constexpr int kBlockThreads = 384;           // about what a block has; a multiple of the vectors in a pixel
constexpr int kMostThreads = 640;            // what a block may have: then each has a hundred registers
constexpr int kPixelsPerThread = 8;          // all loads of a thread are under way at once
constexpr int kVectorBytes = 16;             // the widest load
constexpr int kMostChannels = 4096;          // two sums a channel and a pivot a group fill a block's 48 KiB
constexpr std::int64_t kMostImages = 65535;  // of a grid's second dimension

__device__ float to_float(float x) { return x; }
__device__ float to_float(Bf16 x) { return __bfloat162float(x); }
__device__ float to_float(F16 x) { return __half2float(x); }
template <typename T>
__device__ T from_float(float x);
template <>
__device__ float from_float<float>(float x) {
  return x;
}
template <>
__device__ Bf16 from_float<Bf16>(float x) {
  return __float2bfloat16_rn(x);
}
template <>
__device__ F16 from_float<F16>(float x) {
  return __float2half_rn(x);
}

template <typename T, int V>
struct alignas(sizeof(T) * V) Vector {
  T of[V];
};

// Calls work with a value of the element type.
template <typename Work>
int dispatch(Element element, const Work& work) {
  switch (element) {
    case Element::f32: return work(float{});
    case Element::bf16: return work(Bf16{});
    case Element::f16: return work(F16{});
  }
  return cudaErrorInvalidValue;
}

// As many elements as one load takes, or one at a time where rows do not divide into such vectors.
template <typename T>
constexpr int kWide = kVectorBytes / static_cast<int>(sizeof(T));

bool aligned(const void* pointer) { return reinterpret_cast<std::uintptr_t>(pointer) % kVectorBytes == 0; }

int last_error() { return static_cast<int>(cudaGetLastError()); }

// --- group normalization
//
// Three launches: sums of pixel blocks, then each group's mean and deviation as one factor and one summand a channel,
// then x * factor + summand.

// How one block goes over its pixels: `lanes` threads side by side hold a pixel's channels, `rows` pixels are under
// way.
struct Tile {
  int lanes, rows, pixels;  // pixels of a block
  int threads() const { return lanes * rows; }
  std::int64_t blocks(std::int64_t image_pixels) const { return (image_pixels + pixels - 1) / pixels; }
};

Tile tile_of(int channels, int vector) {
  Tile tile{};
  tile.lanes = channels / vector;
  tile.rows = std::max(1, kBlockThreads / tile.lanes);  // with any number of lanes a block is some whole warps
  tile.pixels = tile.rows * kPixelsPerThread;
  return tile;
}

int vector_of(const GroupNormTask& task, Element element) {
  const int wide = element == Element::f32 ? kWide<float> : kWide<F16>;
  const bool fits = task.channels % wide == 0 && aligned(task.image) && aligned(task.output);
  return fits ? wide : 1;
}

struct Scratch {
  float* pivots;   // [images, groups]: a value of the group, from which differences are taken
  float2* sums;    // [images, groups, blocks]: of the differences and of their squares
  float* factors;  // [images, channels]
  float* summands;
};

Scratch split_scratch(const GroupNormTask& task, std::int64_t blocks) {
  Scratch s{};
  const std::int64_t groups = task.images * task.groups;
  s.sums = reinterpret_cast<float2*>(task.scratch);
  s.pivots = task.scratch + 2 * groups * blocks;
  s.factors = s.pivots + (groups + 3) / 4 * 4;
  s.summands = s.factors + task.images * task.channels;
  return s;
}

__device__ float warp_sum(float x) {
  for (int step = kWarp / 2; step > 0; step /= 2) x += __shfl_down_sync(0xffffffffu, x, step);
  return x;
}
__device__ double warp_sum(double x) {
  for (int step = kWarp / 2; step > 0; step /= 2) x += __shfl_down_sync(0xffffffffu, x, step);
  return x;
}

template <typename T, int V>
__global__ void __launch_bounds__(kMostThreads)
    group_norm_sums(const T* __restrict__ image, const T* __restrict__ add, Tile tile, std::int64_t pixels,
                    int channels, int groups, Scratch scratch) {
  extern __shared__ float shared[];
  float* const row_sums = shared;                            // [rows, channels]
  float* const row_squares = shared + tile.rows * channels;  // [rows, channels]
  float* const pivots = row_squares + tile.rows * channels;  // [groups]
  const std::int64_t index = blockIdx.y;
  const int own_channels = channels / groups;
  const T* const own = image + index * pixels * channels;
  const T* const own_add = add == nullptr ? nullptr : add + index * channels;
  const int lane = static_cast<int>(threadIdx.x) % tile.lanes, row = static_cast<int>(threadIdx.x) / tile.lanes;
  const std::int64_t first = std::int64_t{blockIdx.x} * tile.pixels + row;

  Vector<T, V> values[kPixelsPerThread];
#pragma unroll
  for (int i = 0; i < kPixelsPerThread; ++i) {
    const std::int64_t pixel = first + std::int64_t{i} * tile.rows;
    if (pixel < pixels) values[i] = *reinterpret_cast<const Vector<T, V>*>(own + pixel * channels + lane * V);
  }
  for (int group = static_cast<int>(threadIdx.x); group < groups; group += static_cast<int>(blockDim.x)) {
    const int channel = group * own_channels;
    pivots[group] = to_float(own[channel]) + (own_add == nullptr ? 0.f : to_float(own_add[channel]));
    if (blockIdx.x == 0) scratch.pivots[index * groups + group] = pivots[group];
  }
  __syncthreads();
  float minus[V], sums[V], squares[V];
#pragma unroll
  for (int v = 0; v < V; ++v) {
    const int channel = lane * V + v;
    minus[v] = pivots[channel / own_channels] - (own_add == nullptr ? 0.f : to_float(own_add[channel]));
    sums[v] = squares[v] = 0;
  }
#pragma unroll
  for (int i = 0; i < kPixelsPerThread; ++i) {
    if (first + std::int64_t{i} * tile.rows >= pixels) continue;
#pragma unroll
    for (int v = 0; v < V; ++v) {
      const float difference = to_float(values[i].of[v]) - minus[v];
      sums[v] += difference;
      squares[v] += difference * difference;
    }
  }
#pragma unroll
  for (int v = 0; v < V; ++v) {
    row_sums[row * channels + lane * V + v] = sums[v];
    row_squares[row * channels + lane * V + v] = squares[v];
  }
  __syncthreads();
  // A warp a group; the last threads of a block may be no whole warp and sit this out.
  const int warps = static_cast<int>(blockDim.x) / kWarp, warp = static_cast<int>(threadIdx.x) / kWarp,
            within = static_cast<int>(threadIdx.x) % kWarp;
  if (warp >= warps) return;
  for (int group = warp; group < groups; group += warps) {
    float sum = 0, square = 0;
    for (int i = within; i < tile.rows * own_channels; i += kWarp) {
      const int at = i / own_channels * channels + group * own_channels + i % own_channels;
      sum += row_sums[at];
      square += row_squares[at];
    }
    sum = warp_sum(sum);
    square = warp_sum(square);
    if (within == 0) scratch.sums[(index * groups + group) * gridDim.x + blockIdx.x] = make_float2(sum, square);
  }
}

// A warp a group.
template <typename T>
__global__ void group_norm_factors(GroupNormTask task, std::int64_t blocks, Scratch scratch) {
  const int warps = static_cast<int>(blockDim.x) / kWarp;
  const std::int64_t which = std::int64_t{blockIdx.x} * warps + static_cast<int>(threadIdx.x) / kWarp;
  const int within = static_cast<int>(threadIdx.x) % kWarp;
  if (which >= task.images * task.groups) return;
  const std::int64_t index = which / task.groups;
  const int group = static_cast<int>(which % task.groups), own_channels = task.channels / task.groups;
  double sum = 0, square = 0;
  for (std::int64_t i = within; i < blocks; i += kWarp) {
    const float2 part = scratch.sums[which * blocks + i];
    sum += part.x;
    square += part.y;
  }
  sum = __shfl_sync(0xffffffffu, warp_sum(sum), 0);
  square = __shfl_sync(0xffffffffu, warp_sum(square), 0);
  const double count = static_cast<double>(task.pixels) * own_channels;
  const double offset = sum / count;
  const double variance = fmax(square / count - offset * offset, 0.0);
  const auto mean = static_cast<float>(scratch.pivots[which] + offset);
  // fmax drops NaN, which must stay.
  const auto deviation = isfinite(square) ? static_cast<float>(rsqrt(variance + task.eps)) : nanf("");
  const auto at = [&](const void* values, std::int64_t i) { return to_float(static_cast<const T*>(values)[i]); };
  for (int i = within; i < own_channels; i += kWarp) {
    const int channel = group * own_channels + i;
    const std::int64_t of_image = index * task.channels + channel;
    float factor = deviation * at(task.gain, channel);
    const float shifted = task.add == nullptr ? -mean : at(task.add, of_image) - mean;
    float summand = at(task.bias, channel) + shifted * factor;
    if (task.scale != nullptr) {
      const float scale = 1 + at(task.scale, of_image);
      factor *= scale;
      summand = summand * scale + at(task.shift, of_image);
    }
    scratch.factors[of_image] = factor;
    scratch.summands[of_image] = summand;
  }
}

template <typename T>
__device__ float silu(float x) {
  if constexpr (sizeof(T) == sizeof(float)) return x / (1 + expf(-x));
  else return __fdividef(x, 1 + __expf(-x));  // 0 for divisors above 2^126, as it should be
}

template <typename T, int V, bool Silu>
__global__ void __launch_bounds__(kMostThreads)
    group_norm_apply(const T* __restrict__ image, T* __restrict__ output, Tile tile, std::int64_t pixels, int channels,
                     Scratch scratch) {
  const std::int64_t index = blockIdx.y;
  const int lane = static_cast<int>(threadIdx.x) % tile.lanes, row = static_cast<int>(threadIdx.x) / tile.lanes;
  const std::int64_t first = std::int64_t{blockIdx.x} * tile.pixels + row, start = index * pixels * channels + lane * V;
  Vector<T, V> values[kPixelsPerThread];
#pragma unroll
  for (int i = 0; i < kPixelsPerThread; ++i) {
    const std::int64_t pixel = first + std::int64_t{i} * tile.rows;
    if (pixel < pixels) values[i] = *reinterpret_cast<const Vector<T, V>*>(image + start + pixel * channels);
  }
  float factors[V], summands[V];
#pragma unroll
  for (int v = 0; v < V; ++v) {
    factors[v] = scratch.factors[index * channels + lane * V + v];
    summands[v] = scratch.summands[index * channels + lane * V + v];
  }
#pragma unroll
  for (int i = 0; i < kPixelsPerThread; ++i) {
    const std::int64_t pixel = first + std::int64_t{i} * tile.rows;
    if (pixel >= pixels) continue;
    Vector<T, V> result;
#pragma unroll
    for (int v = 0; v < V; ++v) {
      float x = fmaf(to_float(values[i].of[v]), factors[v], summands[v]);
      if constexpr (Silu) x = silu<T>(x);
      result.of[v] = from_float<T>(x);
    }
    *reinterpret_cast<Vector<T, V>*>(output + start + pixel * channels) = result;
  }
}

template <typename T, int V>
int run_group_norm(const GroupNormTask& task, cudaStream_t stream) {
  const Tile tile = tile_of(task.channels, V);
  const std::int64_t blocks = tile.blocks(task.pixels);
  const Scratch scratch = split_scratch(task, blocks);
  const dim3 grid(static_cast<unsigned>(blocks), static_cast<unsigned>(task.images));
  const auto threads = static_cast<unsigned>(tile.threads());
  const std::size_t shared = (std::size_t{2} * tile.rows * task.channels + task.groups) * sizeof(float);
  const T* const image = static_cast<const T*>(task.image);
  group_norm_sums<T, V><<<grid, threads, shared, stream>>>(image, static_cast<const T*>(task.add), tile, task.pixels,
                                                           task.channels, task.groups, scratch);
  constexpr unsigned kWarps = 4;
  const auto all_groups = static_cast<unsigned>(task.images * task.groups);
  group_norm_factors<T><<<(all_groups + kWarps - 1) / kWarps, kWarps * kWarp, 0, stream>>>(task, blocks, scratch);
  T* const output = static_cast<T*>(task.output);
  const auto apply = task.silu ? group_norm_apply<T, V, true> : group_norm_apply<T, V, false>;
  apply<<<grid, threads, 0, stream>>>(image, output, tile, task.pixels, task.channels, scratch);
  return last_error();
}

// --- element by element

constexpr unsigned kFlatThreads = 256;

// Calls launch(first row, rows) for as many rows at once as 32 bits can count elements of: dividing 64 bits takes
// longer than the memory does.
template <typename Launch>
int in_slices(std::int64_t rows, std::int64_t width, const Launch& launch) {
  constexpr std::int64_t kMost = std::int64_t{1} << 31;
  if (width >= kMost) return cudaErrorInvalidValue;
  const std::int64_t most = width == 0 ? rows : kMost / width;
  for (std::int64_t first = 0; first < rows && width > 0; first += most) {
    if (const int error = launch(first, std::min(most, rows - first)); error != 0) return error;
  }
  return 0;
}

unsigned flat_blocks(std::int64_t vectors) {
  return static_cast<unsigned>((vectors + kFlatThreads - 1) / kFlatThreads);
}
__device__ unsigned flat_index() { return blockIdx.x * blockDim.x + threadIdx.x; }

__device__ float gelu(float x) {
  constexpr float kRootHalf = 0.70710678118654752f;
  return 0.5f * x * (1 + erff(x * kRootHalf));
}

template <typename T, int V>
__global__ void geglu_kernel(const T* __restrict__ halves, T* __restrict__ output, std::int64_t rows, unsigned width) {
  const unsigned across = width / V, i = flat_index();
  if (i >= rows * across) return;
  const T* const value = halves + std::int64_t{i / across} * 2 * width + i % across * V;
  const auto values = *reinterpret_cast<const Vector<T, V>*>(value);
  const auto gates = *reinterpret_cast<const Vector<T, V>*>(value + width);
  Vector<T, V> result;
#pragma unroll
  for (int v = 0; v < V; ++v) result.of[v] = from_float<T>(to_float(values.of[v]) * gelu(to_float(gates.of[v])));
  *reinterpret_cast<Vector<T, V>*>(output + std::int64_t{i} * V) = result;
}

template <typename T, int V>
__global__ void add_kernel(T* __restrict__ image, const T* __restrict__ bias, const T* __restrict__ residual,
                           std::int64_t rows, unsigned width) {
  const unsigned across = width / V, i = flat_index();
  if (i >= rows * across) return;
  const std::int64_t at = std::int64_t{i} * V;
  auto values = *reinterpret_cast<Vector<T, V>*>(image + at);
  Vector<T, V> more{};
  if (residual != nullptr) more = *reinterpret_cast<const Vector<T, V>*>(residual + at);
  const unsigned column = i % across * V;
#pragma unroll
  for (int v = 0; v < V; ++v) {
    float sum = to_float(values.of[v]);
    if (bias != nullptr) sum += to_float(bias[column + v]);
    if (residual != nullptr) sum += to_float(more.of[v]);
    values.of[v] = from_float<T>(sum);
  }
  *reinterpret_cast<Vector<T, V>*>(image + at) = values;
}

}  // namespace

bool takes_group_norm(std::int64_t images, int channels, Element element) {
  const int wide = element == Element::f32 ? kWide<float> : kWide<F16>;
  return images <= kMostImages && channels <= kMostChannels &&
         channels / (channels % wide == 0 ? wide : 1) <= kMostThreads;
}

std::size_t group_norm_scratch(const GroupNormTask& task, Element element) {
  const std::int64_t blocks = tile_of(task.channels, vector_of(task, element)).blocks(task.pixels);
  const std::int64_t groups = task.images * task.groups;
  return static_cast<std::size_t>(2 * groups * blocks + (groups + 3) / 4 * 4 + 2 * task.images * task.channels);
}

int group_norm(const GroupNormTask& task, Element element, Stream stream) {
  const auto queue = static_cast<cudaStream_t>(stream);
  const int vector = vector_of(task, element);
  if (task.channels / vector > kMostThreads || task.images > kMostImages) return cudaErrorInvalidValue;
  return dispatch(element, [&](auto zero) {
    using T = decltype(zero);
    return vector == 1 ? run_group_norm<T, 1>(task, queue) : run_group_norm<T, kWide<T>>(task, queue);
  });
}

int geglu(const void* halves, void* output, std::int64_t rows, std::int64_t width, Element element, Stream stream) {
  const auto queue = static_cast<cudaStream_t>(stream);
  const auto columns = static_cast<unsigned>(width);
  return dispatch(element, [&](auto zero) {
    using T = decltype(zero);
    const bool wide = width % kWide<T> == 0 && aligned(halves) && aligned(output);
    return in_slices(rows, width, [&](std::int64_t first, std::int64_t count) {
      const T* const from = static_cast<const T*>(halves) + 2 * first * width;
      T* const to = static_cast<T*>(output) + first * width;
      const unsigned blocks = flat_blocks(count * width / (wide ? kWide<T> : 1));
      if (wide) geglu_kernel<T, kWide<T>><<<blocks, kFlatThreads, 0, queue>>>(from, to, count, columns);
      else geglu_kernel<T, 1><<<blocks, kFlatThreads, 0, queue>>>(from, to, count, columns);
      return last_error();
    });
  });
}

int add_in_place(void* image, const void* bias, const void* residual, std::int64_t rows, std::int64_t width,
                 Element element, Stream stream) {
  const auto queue = static_cast<cudaStream_t>(stream);
  const auto columns = static_cast<unsigned>(width);
  return dispatch(element, [&](auto zero) {
    using T = decltype(zero);
    const T* const shift = static_cast<const T*>(bias);
    const bool wide = width % kWide<T> == 0 && aligned(image) && aligned(residual);
    return in_slices(rows, width, [&](std::int64_t first, std::int64_t count) {
      T* const own = static_cast<T*>(image) + first * width;
      const T* const more = residual == nullptr ? nullptr : static_cast<const T*>(residual) + first * width;
      const unsigned blocks = flat_blocks(count * width / (wide ? kWide<T> : 1));
      if (wide) add_kernel<T, kWide<T>><<<blocks, kFlatThreads, 0, queue>>>(own, shift, more, count, columns);
      else add_kernel<T, 1><<<blocks, kFlatThreads, 0, queue>>>(own, shift, more, count, columns);
      return last_error();
    });
  });
}

}  // namespace laptopdiff::unet::gpu
