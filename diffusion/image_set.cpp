#include "diffusion/image_set.h"

#include <torch/types.h>

#include <algorithm>

#include "diffusion/image.h"
#include "runtime/error.h"
#include "runtime/hash.h"
#include "runtime/tensors.h"

namespace laptopdiff::diffusion {
namespace {

using namespace runtime;
namespace fs = std::filesystem;

void check_folder(const fs::path& folder) {
  if (!fs::exists(folder)) throw input_error(folder.string(), ": there is no such folder");
  if (!fs::is_directory(folder)) throw input_error(folder.string(), ": expected a folder of pictures, this is a file");
}

std::string numbered_name(std::int64_t index) {
  std::string digits = std::to_string(index);
  if (digits.size() < 6) digits.insert(0, 6 - digits.size(), '0');
  return digits + ".png";
}

at::Tensor read_images_tensor(const fs::path& path) {
  const TensorMap tensors = read_tensors(path);
  const auto found = tensors.find("images");
  if (found == tensors.end()) throw input_error(path.string(), ": there is no tensor `images`");
  const at::Tensor& images = found->second;
  const bool fits = images.scalar_type() == at::kByte && images.dim() == 4 && images.size(1) > 0 &&
                    images.size(2) > 0 && (images.size(3) == 1 || images.size(3) == 3);
  if (!fits) {
    throw input_error(path.string(), ": `images` must be U8 [N, H, W, 1 or 3], is ", dtype_name(dtype_of(images)), " ",
                      sizes_text(images));
  }
  return images;
}

}  // namespace

void ImageSet::find_png_files() {
  for (const fs::directory_entry& entry : fs::directory_iterator(folder_)) {
    if (entry.path().extension() == ".png") files_.push_back(entry.path());
  }
  std::sort(files_.begin(), files_.end());
  count_ = static_cast<std::int64_t>(files_.size());
}

ImageSet ImageSet::open_numbered(const fs::path& folder) {
  check_folder(folder);
  ImageSet set(folder);
  set.find_png_files();
  if (set.count_ == 0)
    throw input_error(folder.string(), ": there are no pictures; expected 000000.png, 000001.png, ...");
  // By number, since 1000000.png sorts before 999999.png.
  std::vector<std::string> names;
  for (const fs::path& file : set.files_) names.push_back(file.filename().string());
  for (std::int64_t i = 0; i < set.count_; ++i) {
    const std::string name = numbered_name(i);
    if (!std::binary_search(names.begin(), names.end(), name)) {
      throw input_error(folder.string(), ": ", name, " is missing among ", set.count_,
                        " .png files; picture i belongs to prompt i, so they must be 000000.png, 000001.png, ...");
    }
    set.files_[static_cast<std::size_t>(i)] = folder / name;
  }
  return set;
}

ImageSet ImageSet::open_reference(const fs::path& folder) {
  check_folder(folder);
  ImageSet set(folder);
  if (fs::exists(folder / "images.safetensors")) {
    set.images_ = read_images_tensor(folder / "images.safetensors");
    set.count_ = set.images_.size(0);
  } else {
    set.find_png_files();
  }
  if (set.count_ == 0) {
    throw input_error(folder.string(), ": there are no pictures; expected .png files or images.safetensors");
  }
  return set;
}

ImageSet ImageSet::open_named(const fs::path& folder, const std::vector<std::string>& names) {
  check_folder(folder);
  ImageSet set(folder);
  for (const std::string& name : names) {
    const fs::path relative = fs::path(name).lexically_normal();
    const bool leaves = relative.is_absolute() || relative.empty() || *relative.begin() == "..";
    if (leaves) throw input_error(folder.string(), ": the file name `", name, "` leaves the folder");
    set.files_.push_back(folder / relative);
  }
  set.count_ = static_cast<std::int64_t>(names.size());
  return set;
}

at::Tensor ImageSet::picture(std::int64_t index) const {
  TORCH_CHECK(index >= 0 && index < count_, "ImageSet: picture ", index, " of ", count_);
  if (images_.defined()) return images_[index];
  return read_png(files_[static_cast<std::size_t>(index)]);
}

void ImageSet::limit(std::int64_t count) {
  count_ = std::min(count_, count);
  if (!images_.defined()) files_.resize(static_cast<std::size_t>(count_));
}

std::string ImageSet::digest() const {
  if (images_.defined()) return sha256_file(folder_ / "images.safetensors");
  Sha256 hash;
  for (const fs::path& file : files_) hash.add(cat(file.filename().string(), '\n', sha256_file(file), '\n'));
  return hash.hex();
}

}  // namespace laptopdiff::diffusion
