#include "diffusion/component.h"

#include <torch/torch.h>

#include <set>

#include "runtime/error.h"
#include "runtime/json.h"

namespace laptopdiff::diffusion {
namespace fs = std::filesystem;
using runtime::input_error;
using runtime::TensorMap;

namespace {

// The shards named by an index file, with its key list as the contract.
TensorMap read_shards(const fs::path& index) {
  const runtime::Json json = runtime::read_json(index);
  runtime::ObjectReader reader(json, index.string());
  const runtime::Json& map = reader.raw("weight_map");
  if (!map.is_object() || map.empty()) throw input_error(index.string(), ": expected a `weight_map` object");
  std::map<std::string, std::vector<std::string>> names_of;  // shard -> its tensors
  for (const auto& [name, shard] : map.items()) {
    const auto file = runtime::ObjectReader::convert<std::string>(shard, index.string() + ": `" + name + "`");
    if (fs::path(file).has_parent_path()) throw input_error(index.string(), ": shard `", file, "` leaves the folder");
    names_of[file].push_back(name);
  }
  TensorMap tensors;
  std::vector<std::string> missing;
  for (const auto& [file, names] : names_of) {
    const TensorMap shard = runtime::read_tensors(index.parent_path() / file);
    for (const auto& name : names) {
      const auto found = shard.find(name);
      if (found == shard.end()) missing.push_back(name + " (" + file + ")");
      else tensors.insert(*found);
    }
  }
  if (!missing.empty()) throw input_error(index.string(), ": tensors missing from their shards: ", runtime::join(missing));
  return tensors;
}

std::string not_found_text(const fs::path& folder, const std::string& stem) {
  std::string text = runtime::cat(folder.string(), ": no weights; expected ", stem, ".safetensors");
  for (const char* name : {"pytorch_model.bin", "diffusion_pytorch_model.bin"}) {
    if (fs::exists(folder / name)) text += runtime::cat(" (", name, " is a pickle file, which is not read; convert it)");
  }
  return text;
}

TensorMap named_state(torch::nn::Module& module) {
  TensorMap state;
  for (const auto& item : module.named_parameters()) state[item.key()] = item.value();
  for (const auto& item : module.named_buffers()) state[item.key()] = item.value();
  return state;
}

void append_list(std::string& text, const char* title, const std::vector<std::string>& names) {
  if (!names.empty()) text += runtime::cat("\n  ", title, " (", names.size(), "): ", runtime::join(names));
}

}  // namespace

TensorMap read_component_tensors(const fs::path& folder, const std::string& stem) {
  // Full precision first: a folder may hold both, and f32 is the compute type.
  for (const std::string variant : {"", ".fp16"}) {
    const fs::path single = folder / (stem + variant + ".safetensors");
    if (fs::exists(single)) return runtime::read_tensors(single);
    const fs::path index = folder / (stem + ".safetensors.index" + variant + ".json");
    if (fs::exists(index)) return read_shards(index);
  }
  throw input_error(not_found_text(folder, stem));
}

void load_module(torch::nn::Module& module, const TensorMap& weights, const std::string& where) {
  const TensorMap state = named_state(module);
  std::vector<std::string> missing, unexpected, misshapen;
  for (const auto& [name, target] : state) {
    const auto found = weights.find(name);
    if (found == weights.end()) missing.push_back(name);
    else if (found->second.sizes() != target.sizes())
      misshapen.push_back(runtime::cat(name, " is ", runtime::sizes_text(found->second), ", the config says ",
                                       runtime::sizes_text(target)));
  }
  for (const auto& [name, tensor] : weights) {
    if (!state.count(name)) unexpected.push_back(name);
  }
  std::string problems;
  append_list(problems, "missing", missing);
  append_list(problems, "unexpected", unexpected);
  append_list(problems, "wrong shape", misshapen);
  if (!problems.empty()) throw input_error(where, ": the weights do not fit the config:", problems);
  const at::NoGradGuard no_grad;
  for (const auto& [name, target] : state) at::Tensor(target).copy_(weights.at(name));
}

}  // namespace laptopdiff::diffusion
