#include "runtime/weight_names.h"

#include <set>

#include "runtime/error.h"

namespace laptopdiff::runtime {
namespace fs = std::filesystem;
namespace {

// What lies between two ends of a name, where it is one word.
std::string variant_between(const std::string& name, const std::string& begin, const std::string& end) {
  if (!name.starts_with(begin) || !name.ends_with(end) || name.size() <= begin.size() + end.size()) return "";
  const std::string word = name.substr(begin.size(), name.size() - begin.size() - end.size());
  // "fp16-00001-of-00002" is a shard; its variant is found by the index.
  return word.find('.') == std::string::npos && word.find("-of-") == std::string::npos ? word : "";
}

}  // namespace

WeightNames weight_names(const fs::path& folder, const std::string& stem, const std::string& variant) {
  const std::string dotted = variant.empty() ? "" : "." + variant;
  return {folder / cat(stem, dotted, ".safetensors"), folder / cat(stem, ".safetensors.index", dotted, ".json")};
}

bool has_weight_files(const fs::path& folder, const std::string& stem, const std::string& variant) {
  const auto [single, index] = weight_names(folder, stem, variant);
  return fs::exists(single) || fs::exists(index);
}

std::vector<std::string> weight_variants(const fs::path& folder, const std::string& stem) {
  std::set<std::string> found;
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator(folder, ignored)) {
    const std::string name = entry.path().filename().string();
    found.insert(variant_between(name, stem + ".", ".safetensors"));
    found.insert(variant_between(name, stem + ".safetensors.index.", ".json"));
  }
  found.erase("");
  return {found.begin(), found.end()};
}

std::string only_variant(const fs::path& folder, const std::string& stem) {
  const std::vector<std::string> known = weight_variants(folder, stem);
  return !has_weight_files(folder, stem, "") && known.size() == 1 ? known.front() : "";
}

}  // namespace laptopdiff::runtime
