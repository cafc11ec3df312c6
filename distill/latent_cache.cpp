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

constexpr std::int64_t kEncodeBatch = 64;

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
  std::vector<at::Tensor> contexts;
  for (std::size_t begin = 0; begin < distinct.size(); begin += kEncodeBatch) {
    const std::vector<std::string> part(
        distinct.begin() + static_cast<std::ptrdiff_t>(begin),
        distinct.begin() + static_cast<std::ptrdiff_t>(std::min(distinct.size(), begin + kEncodeBatch)));
    contexts.push_back(pipeline.encode_prompts(part).context.to(at::kCPU, at::kFloat));
  }
  cache.texts = at::cat(contexts, 0);
  cache.text_of = at::tensor(rows, at::kLong);
}

runtime::TensorMap tensors_of(const LatentCache& cache) {
  runtime::TensorMap map{{"mean", cache.mean}};
  if (cache.std.defined()) map["std"] = cache.std;
  if (cache.texts.defined()) map["texts"] = cache.texts;
  if (cache.text_of.defined()) map["text_of"] = cache.text_of;
  return map;
}

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
  runtime::Progress progress("encode", total, "pictures");
  for (std::int64_t begin = 0; begin < total; begin += kEncodeBatch) {
    runtime::throw_if_interrupted("encoding starts over");
    const std::int64_t end = std::min(total, begin + kEncodeBatch);
    const at::Tensor images = data.images({indices.begin() + begin, indices.begin() + end});
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
  progress.finish();
  return cache;
}

std::string cache_key(const diffusion::Pipeline& pipeline, const diffusion::Dataset& data,
                      const std::vector<std::int64_t>& indices) {
  runtime::Sha256 hash;
  hash.add("laptopdiff latent cache 1\n" + data.digest());
  hash.add(indices.data(), indices.size() * sizeof indices.front());
  for (const char* part : {"vae", "text_encoder", "text_encoder_2", "tokenizer"}) {
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
      return {tensors["mean"], tensors["std"], tensors["texts"], tensors["text_of"]};
    }
  }
  LatentCache cache = encode(pipeline, data, indices);
  runtime::write_tensors(file, tensors_of(cache), {{"key", key}});
  return cache;
}

}  // namespace laptopdiff::distill
