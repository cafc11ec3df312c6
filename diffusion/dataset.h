// Pictures with captions on disk.
//
// A data folder holds metadata.jsonl, one JSON object a line in picture order with `text` (and anything else), and the
// pictures: images.safetensors with `images` U8 [N, H, W, 1 or 3], or PNG files that each line names in `file_name`
// (the layout of Hugging Face image folders).
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "diffusion/image_set.h"

namespace laptopdiff::diffusion {

class Dataset {
 public:
  // Throws Error(bad_input): no folder, no pictures, captions and pictures of different counts, wrong types.
  static Dataset open(const std::filesystem::path& folder);

  std::int64_t count() const { return static_cast<std::int64_t>(captions_.size()); }
  const std::string& caption(std::int64_t index) const { return captions_[static_cast<std::size_t>(index)]; }
  // U8 [B, H, W, 3]; grey pictures are repeated. Throws Error(bad_input) where files have different sizes.
  at::Tensor images(const std::vector<std::int64_t>& indices) const;
  // SHA-256 over captions, then images.safetensors or the names and contents of the PNG files.
  std::string digest() const;
  const std::filesystem::path& folder() const { return images_.folder(); }

 private:
  Dataset(ImageSet images, std::vector<std::string> captions)
      : images_(std::move(images)), captions_(std::move(captions)) {}

  ImageSet images_;
  std::vector<std::string> captions_;
};

}  // namespace laptopdiff::diffusion
