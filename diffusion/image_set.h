// Pictures on disk, read one at a time: PNG files, or one images.safetensors.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace laptopdiff::diffusion {

class ImageSet {
 public:
  // FOLDER/000000.png, 000001.png, ... in order; other names and gaps are errors, since picture i belongs to prompt i.
  // Other kinds of files are left alone. Throws Error(bad_input) for no folder, no pictures, or wrong names.
  static ImageSet open_numbered(const std::filesystem::path& folder);
  // FOLDER/images.safetensors (`images`, U8 [N, H, W, 1 or 3]) where it is there, else all PNG files by name.
  // Throws Error(bad_input) for neither, no pictures, or a tensor of another type or shape.
  static ImageSet open_reference(const std::filesystem::path& folder);
  // FOLDER's PNG files of these names, in this order. A name that leaves the folder is an Error(bad_input).
  static ImageSet open_named(const std::filesystem::path& folder, const std::vector<std::string>& names);

  std::int64_t count() const { return count_; }
  const std::filesystem::path& folder() const { return folder_; }
  // The PNG files in order, below folder(); empty for images.safetensors.
  const std::vector<std::filesystem::path>& files() const { return files_; }
  // U8 [H, W, 1 or 3]. Throws Error(bad_input) naming a file that cannot be read.
  at::Tensor picture(std::int64_t index) const;
  // Keeps only the first `count` pictures.
  void limit(std::int64_t count);
  // SHA-256 over names and contents: of the PNG files in the set, or of images.safetensors as a whole.
  std::string digest() const;

 private:
  explicit ImageSet(std::filesystem::path folder) : folder_(std::move(folder)) {}
  void find_png_files();

  std::filesystem::path folder_;
  std::vector<std::filesystem::path> files_;  // empty for images.safetensors
  at::Tensor images_;                         // a view of the mapped file; undefined for PNG files
  std::int64_t count_ = 0;
};

}  // namespace laptopdiff::diffusion
