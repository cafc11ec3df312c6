#include "runtime/weight_files.h"

#include "runtime/error.h"
#include "runtime/file.h"
#include "runtime/json.h"
#include "runtime/weight_names.h"

namespace laptopdiff::runtime {
namespace fs = std::filesystem;
namespace {

// Shards must be plain names in the same folder: an index cannot point elsewhere.
fs::path shard_path(const fs::path& index, const std::string& name) {
  if (!is_file_name(name)) {
    throw input_error(index.string(), ": shard `", name.substr(0, 100), "` is not a file name in this folder");
  }
  return index.parent_path() / name;
}

TensorMap read_shards(const fs::path& index) {
  const Json json = read_json(index);
  ObjectReader in(json, index.string());
  const Json& map = in.raw("weight_map");
  if (!map.is_object() || map.empty()) throw input_error(index.string(), ": `weight_map` must be an object");
  std::map<std::string, std::vector<std::string>> names_of;
  for (const auto& [tensor, shard] : map.items()) {
    names_of[ObjectReader::convert<std::string>(shard, cat(index.string(), ": ", tensor))].push_back(tensor);
  }
  TensorMap tensors;
  std::vector<std::string> missing, unlisted;
  for (const auto& [shard, names] : names_of) {
    const auto file = SafetensorsFile::open(shard_path(index, shard));
    for (const std::string& name : names) {
      const auto found = file->tensors().find(name);
      if (found == file->tensors().end()) missing.push_back(cat(name, " (", shard, ")"));
      else tensors[name] = view_tensor(file, found->second);
    }
    for (const auto& [name, view] : file->tensors()) {
      if (!map.contains(name)) unlisted.push_back(cat(name, " (", shard, ")"));
    }
  }
  if (!missing.empty()) throw input_error(index.string(), ": tensors missing from their shards: ", listing(missing));
  if (!unlisted.empty())
    throw input_error(index.string(), ": does not list tensors that its shards hold: ", listing(unlisted));
  return tensors;
}

std::string advice_on_pickles(const fs::path& folder, const std::string& stem) {
  for (const std::string& begin : {stem, std::string("pytorch_model")}) {
    for (const char* end : {".bin", ".fp16.bin", ".bin.index.json", ".fp16.bin.index.json", ".bin.index.fp16.json"}) {
      if (!fs::exists(folder / (begin + end))) continue;
      return cat("; ", begin, end,
                 " is pickled, which can run code when read: convert it with save_pretrained(safe_serialization=True)");
    }
  }
  return "";
}

}  // namespace

TensorMap read_weight_files(const fs::path& folder, const std::string& stem, const std::string& variant) {
  // Full precision first: a folder may hold both, and f32 is the compute type.
  const std::string chosen = variant.empty() ? only_variant(folder, stem) : variant;
  const auto [single, index] = weight_names(folder, stem, chosen);
  if (fs::exists(single)) return read_tensors(single);
  if (fs::exists(index)) return read_shards(index);
  const std::vector<std::string> known = weight_variants(folder, stem);
  if (variant.empty() && !known.empty()) {
    throw input_error(folder.string(), ": ", stem, ".safetensors is there only as the variants ", join(known),
                      "; choose one with --variant");
  }
  throw input_error(folder.string(), ": no weights", variant.empty() ? "" : cat(" of the variant `", variant, "`"),
                    "; expected ", single.filename().string(), " or its .index.json",
                    variant.empty() ? "" : did_you_mean(variant, known), advice_on_pickles(folder, stem));
}

TensorMap read_preferred_weight_files(const fs::path& folder, const std::string& stem, const std::string& variant) {
  return read_weight_files(folder, stem, has_weight_files(folder, stem, variant) ? variant : "");
}

}  // namespace laptopdiff::runtime
