// Training pictures and captions, encoded once: moments of the latents and one embedding a distinct caption.
#pragma once

#include <ATen/core/Tensor.h>

#include <filesystem>
#include <string>
#include <vector>

#include "diffusion/dataset.h"
#include "diffusion/pipeline.h"
#include "runtime/tensors.h"

namespace laptopdiff::distill {

// N pictures, K distinct captions.
struct LatentCache {
  at::Tensor mean;     // f32 [N, c, h, w], scaled; pixels in [-1, 1] for models without a VAE
  at::Tensor std;      // f32 [N, c, h, w], scaled; undefined for pixels
  at::Tensor texts;    // f32 [K, T, D]; undefined without a text encoder
  at::Tensor text_of;  // int64 [N]
  at::Tensor pooled;   // f32 [K, P]; SD XL
  // f32 [6], SD XL: height and width of the picture, the crop's corner, height and width of the target (2307.01952,
  // section 2.2). The pictures of a data folder have one size and are not cropped.
  at::Tensor time_ids;

  std::int64_t count() const { return mean.size(0); }
};

// Encodes the pictures `indices` of `data`. The pipeline runs on its own device; the cache is on the CPU.
LatentCache encode(diffusion::Pipeline& pipeline, const diffusion::Dataset& data,
                   const std::vector<std::int64_t>& indices);

// `count` picture numbers of `data` (all where 0), a function of the seed. Throws Error(usage) where there are fewer.
std::vector<std::int64_t> pick_images(const diffusion::Dataset& data, std::int64_t count, std::uint64_t seed,
                                      bool shuffled);

// The cache in `file` where it was made for `key`, else encodes and writes it there.
LatentCache load_or_encode(const std::filesystem::path& file, const std::string& key, diffusion::Pipeline& pipeline,
                           const diffusion::Dataset& data, const std::vector<std::int64_t>& indices);

// What the cache depends on: weights of VAE and text encoder, pictures, captions, indices.
std::string cache_key(const diffusion::Pipeline& pipeline, const diffusion::Dataset& data,
                      const std::vector<std::int64_t>& indices);

}  // namespace laptopdiff::distill
