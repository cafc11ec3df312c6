#include "runtime/weight_files.h"

#include "runtime/error.h"
#include "runtime/json.h"

namespace laptopdiff::runtime {
namespace fs = std::filesystem;
namespace {

// Shards must be plain names in the same folder: an index cannot point elsewhere.
fs::path shard_path(const fs::path& index, const std::string& name) {
  if (name.empty() || name == "." || name == ".." || fs::path(name).filename() != fs::path(name)) {
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
  std::vector<std::string> missing;
  for (const auto& [shard, names] : names_of) {
    const auto file = SafetensorsFile::open(shard_path(index, shard));
    for (const std::string& name : names) {
      const auto found = file->tensors().find(name);
      if (found == file->tensors().end()) missing.push_back(cat(name, " (", shard, ")"));
      else tensors[name] = view_tensor(file, found->second);
    }
  }
  if (!missing.empty()) throw input_error(index.string(), ": tensors missing from their shards: ", join(missing));
  return tensors;
}

std::string advice_on_pickles(const fs::path& folder, const std::string& stem) {
  for (const std::string& name : {stem + ".bin", stem + ".fp16.bin", std::string("pytorch_model.bin")}) {
    if (!fs::exists(folder / name)) continue;
    return cat("; ", name,
               " is pickled, which can run code when read: convert it with save_pretrained(safe_serialization=True)");
  }
  return "";
}

}  // namespace

TensorMap read_weight_files(const fs::path& folder, const std::string& stem) {
  // Full precision first: a folder may hold both, and f32 is the compute type.
  for (const char* variant : {"", ".fp16"}) {
    const fs::path single = folder / cat(stem, variant, ".safetensors");
    if (fs::exists(single)) return read_tensors(single);
    const fs::path index = folder / cat(stem, ".safetensors.index", variant, ".json");
    if (fs::exists(index)) return read_shards(index);
  }
  throw input_error(folder.string(), ": no weights; expected ", stem, ".safetensors or its .index.json",
                    advice_on_pickles(folder, stem));
}

}  // namespace laptopdiff::runtime
