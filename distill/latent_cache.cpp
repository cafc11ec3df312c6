#include "distill/latent_cache.h"

#include <torch/types.h>

#include <algorithm>
#include <map>
#include <numeric>

#include "diffusion/image.h"
#include "runtime/error.h"
#include "runtime/hash.h"
#include "runtime/progress.h"
#include "runtime/random.h"
#include "runtime/stop.h"

namespace laptopdiff::distill {
namespace {

using runtime::cat;

constexpr std::int64_t kTextBatch = 64;
constexpr std::int64_t kPictureBatch = 64;
constexpr std::int64_t kPixelBatch = 1 << 20;  // an SD VAE holds some 4 KiB a pixel while it encodes

void encode_texts(diffusion::Pipeline& pipeline, const diffusion::Dataset& data,
                  const std::vector<std::int64_t>& indices, LatentCache& cache) {
  std::map<std::string, std::int64_t> row_of;
  std::vector<std::string> distinct;
  std::vector<std::int64_t> rows;
  for (const std::int64_t index : indices) {
    const auto [entry, fresh] = row_of.try_emplace(data.caption(index), static_cast<std::int64_t>(distinct.size()));
    if (fresh) distinct.push_back(data.caption(index));
    rows.push_back(entry->second);
  }
  std::vector<at::Tensor> contexts, pooled;
  for (std::size_t begin = 0; begin < distinct.size(); begin += kTextBatch) {
    const std::vector<std::string> part(
        distinct.begin() + static_cast<std::ptrdiff_t>(begin),
        distinct.begin() + static_cast<std::ptrdiff_t>(std::min(distinct.size(), begin + kTextBatch)));
    const diffusion::EncodedPrompts encoded = pipeline.encode_prompts(part);
    contexts.push_back(encoded.context.to(at::kCPU, at::kFloat));
    if (pipeline.is_xl()) pooled.push_back(encoded.pooled.to(at::kCPU, at::kFloat));
  }
  cache.texts = at::cat(contexts, 0);
  if (!pooled.empty()) cache.pooled = at::cat(pooled, 0);
  cache.text_of = at::tensor(rows, at::kLong);
}

// Each part under its name in the file.
constexpr std::pair<const char*, at::Tensor LatentCache::*> kParts[] = {
    {"mean", &LatentCache::mean},       {"std", &LatentCache::std},       {"texts", &LatentCache::texts},
    {"text_of", &LatentCache::text_of}, {"pooled", &LatentCache::pooled}, {"time_ids", &LatentCache::time_ids},
};

}  // namespace

std::vector<std::int64_t> pick_images(const diffusion::Dataset& data, std::int64_t count, std::uint64_t seed,
                                      bool shuffled) {
  if (count > data.count())
    throw runtime::usage_error(data.folder().string(), " has ", data.count(), " pictures, ", count, " were asked for");
  if (count == 0 && !shuffled) {
    std::vector<std::int64_t> all(static_cast<std::size_t>(data.count()));
    std::iota(all.begin(), all.end(), std::int64_t{0});
    return all;
  }
  std::vector<std::int64_t> order = runtime::permutation(data.count(), seed, runtime::Purpose::calibration_pick, 0);
  if (count > 0) order.resize(static_cast<std::size_t>(count));
  return order;
}

LatentCache encode(diffusion::Pipeline& pipeline, const diffusion::Dataset& data,
                   const std::vector<std::int64_t>& indices) {
  const c10::InferenceMode inference;
  LatentCache cache;
  std::vector<at::Tensor> means, stds;
  const auto total = static_cast<std::int64_t>(indices.size());
  const at::Tensor first = data.images({indices.begin(), indices.begin() + 1});
  const std::int64_t height = first.size(1), width = first.size(2);
  const std::int64_t batch = std::clamp<std::int64_t>(kPixelBatch / (height * width), 1, kPictureBatch);
  runtime::Progress progress("encode", total, "pictures");
  for (std::int64_t begin = 0; begin < total; begin += batch) {
    runtime::throw_if_interrupted("encoding starts over");
    const std::int64_t end = std::min(total, begin + batch);
    const at::Tensor images = data.images({indices.begin() + begin, indices.begin() + end});
    if (images.size(1) != height || images.size(2) != width) {
      throw runtime::input_error(data.folder().string(), ": pictures of ", height, " x ", width, " and of ",
                                 images.size(1), " x ", images.size(2), "; all must have one size");
    }
    if (!pipeline.vae) {
      means.push_back(diffusion::from_u8(images));
    } else {
      const diffusion::Moments moments = pipeline.encode_images(images);
      const double scale = (*pipeline.vae)->scaling_factor();
      means.push_back((moments.mean * scale).to(at::kCPU, at::kFloat));
      stds.push_back((at::exp(0.5 * moments.logvar) * scale).to(at::kCPU, at::kFloat));
    }
    progress.update(end);
  }
  cache.mean = at::cat(means, 0);
  if (!stds.empty()) cache.std = at::cat(stds, 0);
  if (!pipeline.text.empty()) encode_texts(pipeline, data, indices, cache);
  if (pipeline.is_xl()) {
    const std::vector<std::int64_t> sizes = {height, width, 0, 0, height, width};
    cache.time_ids = at::tensor(sizes, at::kFloat);
  }
  progress.finish();
  return cache;
}

std::string cache_key(const diffusion::Pipeline& pipeline, const diffusion::Dataset& data,
                      const std::vector<std::int64_t>& indices) {
  runtime::Sha256 hash;
  hash.add("laptopdiff latent cache 2\n" + data.digest());
  hash.add(indices.data(), indices.size() * sizeof indices.front());
  if (std::filesystem::is_regular_file(pipeline.folder)) hash.add(runtime::sha256_file(pipeline.folder) + "\n");
  for (const char* part : {"vae", "text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2"}) {
    const auto folder = pipeline.folder / part;
    if (!std::filesystem::is_directory(folder)) continue;
    std::vector<std::filesystem::path> files;
    for (const auto& entry : std::filesystem::directory_iterator(folder)) {
      if (entry.is_regular_file()) files.push_back(entry.path());
    }
    std::sort(files.begin(), files.end());
    for (const auto& file : files)
      hash.add(cat(part, "/", file.filename().string(), " ", runtime::sha256_file(file), "\n"));
  }
  return hash.hex();
}

LatentCache load_or_encode(const std::filesystem::path& file, const std::string& key, diffusion::Pipeline& pipeline,
                           const diffusion::Dataset& data, const std::vector<std::int64_t>& indices) {
  if (std::filesystem::exists(file)) {
    const auto stored = runtime::SafetensorsFile::open(file);
    const auto found = stored->metadata().find("key");
    if (found != stored->metadata().end() && found->second == key) {
      runtime::TensorMap tensors = runtime::read_tensors(file);
      LatentCache cache;
      for (const auto& [name, part] : kParts) cache.*part = tensors[name];
      return cache;
    }
  }
  LatentCache cache = encode(pipeline, data, indices);
  runtime::TensorMap tensors;
  for (const auto& [name, part] : kParts) {
    if ((cache.*part).defined()) tensors[name] = cache.*part;
  }
  runtime::write_tensors(file, tensors, {{"key", key}});
  return cache;
}

}  // namespace laptopdiff::distill
