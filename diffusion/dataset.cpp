#include "diffusion/dataset.h"

#include <torch/types.h>

#include <sstream>

#include "diffusion/image.h"
#include "runtime/error.h"
#include "runtime/file.h"
#include "runtime/hash.h"
#include "runtime/json.h"
#include "runtime/tensors.h"

namespace laptopdiff::diffusion {
namespace {

using runtime::cat;
using runtime::input_error;

at::Tensor as_rgb(const at::Tensor& image) {
  return image.size(-1) == 3 ? image : image.expand({image.size(0), image.size(1), image.size(2), 3});
}

}  // namespace

Dataset Dataset::open(const std::filesystem::path& folder) {
  Dataset data;
  data.folder_ = folder;
  const auto metadata = folder / "metadata.jsonl", packed = folder / "images.safetensors";
  std::istringstream lines(runtime::read_file(metadata));
  const bool has_tensor = std::filesystem::exists(packed);
  std::int64_t number = 0;
  for (std::string line; std::getline(lines, line);) {
    const std::string where = cat(metadata.string(), ":", ++number);
    if (line.empty()) continue;
    const runtime::Json row = runtime::parse_json(line, where);
    runtime::ObjectReader in(row, where);
    data.captions_.push_back(in.required<std::string>("text"));
    if (has_tensor) continue;
    const auto name = in.required<std::string>("file_name");
    const std::filesystem::path relative(name);
    if (relative.is_absolute() || name.find("..") != std::string::npos)
      throw input_error(where, ": `file_name` leaves the folder: ", name);
    data.files_.push_back(name);
  }
  if (data.captions_.empty()) throw input_error(metadata.string(), ": no rows");
  if (!has_tensor) return data;
  const auto file = runtime::SafetensorsFile::open(packed);
  data.packed_ = runtime::view_tensor(file, file->at("images"));
  const at::Tensor& images = data.packed_;
  if (images.scalar_type() != at::kByte || images.dim() != 4 || (images.size(3) != 1 && images.size(3) != 3)) {
    throw input_error(packed.string(), ": `images` is ", runtime::sizes_text(images),
                      ", expected U8 [N, H, W, 1 or 3]");
  }
  if (images.size(0) != data.count())
    throw input_error(folder.string(), ": ", images.size(0), " pictures and ", data.count(), " rows of metadata.jsonl");
  return data;
}

at::Tensor Dataset::images(const std::vector<std::int64_t>& indices) const {
  if (packed_.defined()) return as_rgb(packed_.index_select(0, at::tensor(indices)));
  std::vector<at::Tensor> pictures;
  for (const std::int64_t index : indices) {
    const auto path = folder_ / files_[static_cast<std::size_t>(index)];
    pictures.push_back(as_rgb(read_png(path).unsqueeze(0)));
    if (pictures.back().sizes() != pictures.front().sizes()) {
      throw input_error(path.string(), ": is ", runtime::sizes_text(pictures.back()), ", others are ",
                        runtime::sizes_text(pictures.front()), "; resize the pictures to one size first");
    }
  }
  return at::cat(pictures, 0);
}

std::string Dataset::digest() const {
  runtime::Sha256 hash;
  for (const std::string& caption : captions_) hash.add(caption + "\n");
  if (packed_.defined()) hash.add(packed_.const_data_ptr(), packed_.nbytes());
  for (const std::string& file : files_) {
    std::error_code error;
    const auto size = std::filesystem::file_size(folder_ / file, error);
    if (error) throw input_error("cannot read ", (folder_ / file).string(), ": ", error.message());
    hash.add(cat(file, " ", size, "\n"));
  }
  return hash.hex();
}

}  // namespace laptopdiff::diffusion
