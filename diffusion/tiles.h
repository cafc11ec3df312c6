// A network run over overlapping tiles of an image, so that its memory does not grow with the image.
//
// Letters: B batch, C channels in, K channels out, H W the input's size.
// The layout and the linear blending are those of diffusers' AutoencoderKL.enable_tiling.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>

namespace laptopdiff::diffusion {

enum class Tiling { off, on };

// The side of a full tile before and after the network. Neighbours overlap by a quarter of it.
struct TileShape {
  std::int64_t in = 64, out = 512;
};

// `run` takes [B, C, h, w], h and w at most tile.in, to a new tensor [B, K, h * out / in, w * out / in]. Returns the
// tiles' outputs side by side, each faded in over the end of the one above and the one to its left.
// Throws Error(bad_input) where a tile is too small to overlap.
at::Tensor run_tiled(const at::Tensor& image, TileShape tile, const std::function<at::Tensor(const at::Tensor&)>& run);

}  // namespace laptopdiff::diffusion
