// The GPU kernels of an executor for inference, on plain pointers: no LibTorch, so nvcc alone compiles them.
//
// Images lie channels-last: [images, pixels, channels]. All pointers are to device memory and to elements of one type;
// sums are taken in f32. Calls only queue work. They return a cudaError_t (0: none) of the launch. Results do not
// depend on the rest of a batch and are the same bits every time: no atomics, and blocks that follow from one image's
// size.
#pragma once

#include <cstddef>
#include <cstdint>

namespace laptopdiff::unet::gpu {

enum class Element { f32, bf16, f16 };
using Stream = void*;  // cudaStream_t

// act((norm(x + add) * gain + bias) * (1 + scale) + shift). Source: Wu and He, "Group Normalization"
// (arXiv:1803.08494); variances are of differences from one of the group's values, so that a large mean does not
// cancel.
struct GroupNormTask {
  const void* image = nullptr;
  void* output = nullptr;
  float* scratch = nullptr;  // group_norm_scratch() floats
  std::int64_t images = 0, pixels = 0;
  int channels = 0, groups = 1;
  float eps = 0;
  const void *gain = nullptr, *bias = nullptr;    // [channels]
  const void* add = nullptr;                      // [images, channels], or null
  const void *scale = nullptr, *shift = nullptr;  // [images, channels], or null
  bool silu = false;
};

// Whether a launch can be as large; images must lie at addresses that 16 divides.
bool takes_group_norm(std::int64_t images, int channels, Element element);
std::size_t group_norm_scratch(const GroupNormTask& task, Element element);
int group_norm(const GroupNormTask& task, Element element, Stream stream);

// halves [rows, 2 * width] -> output [rows, width]: the first half times GELU (with erf) of the second. Source:
// Shazeer, "GLU Variants Improve Transformer" (arXiv:2002.05202).
int geglu(const void* halves, void* output, std::int64_t rows, std::int64_t width, Element element, Stream stream);

// image [rows, width] += bias [width] + residual [rows, width], rounded once; either may be null.
int add_in_place(void* image, const void* bias, const void* residual, std::int64_t rows, std::int64_t width,
                 Element element, Stream stream);

}  // namespace laptopdiff::unet::gpu
