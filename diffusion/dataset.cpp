#include "diffusion/dataset.h"

#include <torch/types.h>

#include <sstream>

#include "runtime/error.h"
#include "runtime/file.h"
#include "runtime/hash.h"
#include "runtime/json.h"
#include "runtime/tensors.h"

namespace laptopdiff::diffusion {
namespace {

using runtime::cat;
using runtime::input_error;

}  // namespace

Dataset Dataset::open(const std::filesystem::path& folder) {
  const auto metadata = folder / "metadata.jsonl";
  const bool packed = std::filesystem::exists(folder / "images.safetensors");
  std::istringstream lines(runtime::read_file(metadata));
  std::vector<std::string> captions, files;
  std::int64_t number = 0;
  for (std::string line; std::getline(lines, line);) {
    const std::string where = cat(metadata.string(), ":", ++number);
    if (line.empty()) continue;
    const runtime::Json row = runtime::parse_json(line, where);
    runtime::ObjectReader in(row, where);
    captions.push_back(in.required<std::string>("text"));
    if (!packed) files.push_back(in.required<std::string>("file_name"));
  }
  if (captions.empty()) throw input_error(metadata.string(), ": no rows");
  ImageSet images = packed ? ImageSet::open_reference(folder) : ImageSet::open_named(folder, files);
  if (images.count() != static_cast<std::int64_t>(captions.size())) {
    throw input_error(folder.string(), ": ", images.count(), " pictures and ", captions.size(),
                      " rows of metadata.jsonl");
  }
  return Dataset(std::move(images), std::move(captions));
}

at::Tensor Dataset::images(const std::vector<std::int64_t>& indices) const {
  std::vector<at::Tensor> pictures;
  for (const std::int64_t index : indices) {
    const at::Tensor picture = images_.picture(index);
    pictures.push_back(picture.expand({picture.size(0), picture.size(1), 3}));
    if (pictures.back().sizes() != pictures.front().sizes()) {
      throw input_error(images_.files()[static_cast<std::size_t>(index)].string(), ": is ",
                        runtime::sizes_text(pictures.back()), ", others are ", runtime::sizes_text(pictures.front()),
                        "; resize the pictures to one size first");
    }
  }
  return at::stack(pictures);
}

std::string Dataset::digest() const {
  runtime::Sha256 hash;
  for (const std::string& caption : captions_) hash.add(caption + "\n");
  if (images_.files().empty()) hash.add(images_.digest());
  for (const std::filesystem::path& file : images_.files()) {
    hash.add(cat(file.lexically_relative(folder()).string(), " ", runtime::sha256_file(file), "\n"));
  }
  return hash.hex();
}

}  // namespace laptopdiff::diffusion
