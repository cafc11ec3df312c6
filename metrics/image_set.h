// Pictures on disk, read one at a time: a folder of PNG files, or a data folder with one images.safetensors.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "metrics/resize.h"

namespace laptopdiff::metrics {

class ImageSet {
 public:
  // FOLDER/000000.png, 000001.png, ... in order; other names and gaps are errors, since picture i belongs to prompt i.
  // Other kinds of files are left alone. Throws Error(bad_input) for no folder, no pictures, or wrong names.
  static ImageSet open_numbered(const std::filesystem::path& folder);
  // FOLDER/images.safetensors (`images`, U8 [N, H, W, 1 or 3]) where it is there, else all PNG files by name.
  // Throws Error(bad_input) for neither, no pictures, or a tensor of another type or shape.
  static ImageSet open_reference(const std::filesystem::path& folder);

  std::int64_t count() const { return count_; }
  const std::filesystem::path& folder() const { return folder_; }
  // U8 [H, W, 1 or 3]. Throws Error(bad_input) naming a file that cannot be read.
  at::Tensor picture(std::int64_t index) const;
  // Keeps only the first `count` pictures.
  void limit(std::int64_t count);
  // SHA-256 over names and contents: for PNG files those in the set, for a data folder its whole images.safetensors.
  std::string digest() const;

 private:
  explicit ImageSet(std::filesystem::path folder) : folder_(std::move(folder)) {}
  void find_png_files();

  std::filesystem::path folder_;
  std::vector<std::filesystem::path> files_;  // empty for a data folder
  at::Tensor images_;                         // a view of the mapped file; undefined for PNG files
  std::int64_t count_ = 0;
};

// The sizes met while reading a set.
struct SizeRange {
  PictureSize first, smallest, largest;  // smallest and largest by area
  bool mixed = false;
};

using BatchVisitor = std::function<void(const std::vector<at::Tensor>& pictures)>;
// Reads the set once, `batch` pictures at a time, in order; shows progress under `stage`.
SizeRange for_each_batch(const ImageSet& images, std::int64_t batch, const std::string& stage,
                         const BatchVisitor& visit);

}  // namespace laptopdiff::metrics
