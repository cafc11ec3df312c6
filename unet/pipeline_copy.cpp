#include "unet/pipeline_copy.h"

#include <algorithm>

#include "runtime/error.h"
#include "runtime/file.h"
#include "runtime/safetensors.h"
#include "runtime/weight_names.h"

namespace laptopdiff::unet {
namespace fs = std::filesystem;
namespace {

using runtime::cat;
using runtime::input_error;
using runtime::Json;

constexpr const char* kIndex = "model_index.json";
constexpr const char* kStems[] = {"model", "diffusion_pytorch_model"};
constexpr const char* kReserved[] = {"README.md", "spec.json", "SHA256SUMS", kIndex};  // what an export writes itself

void copy_plain(const fs::path& from, const fs::path& to) {
  if (!fs::is_regular_file(from)) throw input_error(from.string(), ": is not a file that can be copied");
  std::error_code error;
  fs::copy_file(from, to, error);
  if (!error) return;
  if (error == std::errc::no_space_on_device)
    throw runtime::resource_error("cannot write ", to.string(), ": ", error.message());
  throw input_error("cannot copy ", from.string(), ": ", error.message());
}

// Not fs::copy: it would give a folder its source's mode, and a read-only one could not be filled.
// Files may be links, as a download cache has them; a linked folder could be anything of the disk, or lead up.
void copy_folder(const fs::path& from, const fs::path& to) {
  fs::create_directories(to);
  for (const auto& entry : fs::directory_iterator(from)) {
    const fs::path target = to / entry.path().filename();
    if (entry.is_directory() && entry.is_symlink())
      throw input_error(entry.path().string(), ": is a link to a folder, which is not followed; put the folder there");
    if (entry.is_directory()) copy_folder(entry.path(), target);
    else copy_plain(entry.path(), target);
  }
}

// Which variant a component's weights are taken in: the wanted one where it is there, else the only one there is.
std::string chosen_variant(const fs::path& folder, const std::string& stem, const std::string& wanted) {
  return runtime::has_weight_files(folder, stem, wanted) ? wanted : runtime::only_variant(folder, stem);
}

// Weights of the variant take the plain names; shards keep theirs, which the index gives.
void drop_variant(const fs::path& folder, const std::string& stem, const std::string& variant) {
  if (variant.empty()) return;
  for (const auto& entry : std::vector<fs::directory_entry>(fs::directory_iterator(folder), fs::directory_iterator())) {
    const std::string name = entry.path().filename().string();
    const bool full_shard = name.starts_with(stem + "-") && name.find("-of-") != std::string::npos;
    if (full_shard && name.ends_with(".safetensors")) fs::remove(entry.path());
  }
  const auto plain = runtime::weight_names(folder, stem, ""), chosen = runtime::weight_names(folder, stem, variant);
  for (const auto& [from, to] : {std::pair{chosen.single, plain.single}, {chosen.index, plain.index}}) {
    fs::remove(to);
    if (fs::exists(from)) fs::rename(from, to);
  }
}

bool is_weights(const fs::path& file) {
  const fs::path end = file.extension();
  return end == ".safetensors" || end == ".bin" || end == ".msgpack" || end == ".onnx";
}

// A copy that does not load is worse than none: configs must read, weights must be whole (pickles are not opened).
void check_component(const fs::path& folder) {
  bool weights = false;
  for (const auto& entry : fs::directory_iterator(folder)) {
    weights = weights || is_weights(entry.path());
    if (entry.path().extension() == ".safetensors") (void)runtime::SafetensorsFile::open(entry.path());
  }
  if (!fs::exists(folder / "config.json")) return;  // a tokenizer, scheduler or image processor
  if (!runtime::read_json(folder / "config.json").is_object())
    throw input_error((folder / "config.json").string(), ": must be an object");
  if (!weights) throw input_error(folder.string(), ": has a config.json but no weights");
}

void copy_component(const fs::path& from, const fs::path& to, const std::string& name, const std::string& variant) {
  if (fs::is_directory(from / name)) {
    check_component(from / name);
    copy_folder(from / name, to / name);
    for (const char* stem : kStems) drop_variant(to / name, stem, chosen_variant(to / name, stem, variant));
  } else if (name == "scheduler" && fs::exists(from / "scheduler_config.json")) {
    // Early unconditional pipelines have their configs at the top level.
    fs::create_directories(to / name);
    copy_plain(from / "scheduler_config.json", to / name / "scheduler_config.json");
  } else {
    throw input_error(from.string(), ": ", kIndex, " names `", name, "`, but there is no such folder");
  }
}

Json read_index(const fs::path& pipeline) {
  Json index = runtime::read_json(pipeline / kIndex);
  if (!index.is_object()) throw input_error((pipeline / kIndex).string(), ": must be an object");
  return index;
}

// Other entries are settings, such as requires_safety_checker.
bool is_component(const fs::path& pipeline, const std::string& name, const Json& entry) {
  return entry.is_array() || (runtime::is_file_name(name) && fs::is_directory(pipeline / name));
}

}  // namespace

std::vector<std::string> pipeline_components(const fs::path& pipeline) {
  const Json index = read_index(pipeline);
  const std::string where = (pipeline / kIndex).string();
  std::vector<std::string> names;
  for (const auto& [name, entry] : index.items()) {
    if (name.starts_with("_") || !is_component(pipeline, name, entry)) continue;
    const bool pair = entry.is_array() && entry.size() == 2;
    if (pair && entry[0].is_null() && entry[1].is_null()) continue;
    if (!pair || !entry[0].is_string() || !entry[1].is_string())
      throw input_error(where, ": `", name.substr(0, 100), "`: expected [library, class] or [null, null]");
    if (name == "unet") continue;
    if (!runtime::is_file_name(name)) throw input_error(where, ": `", name.substr(0, 100), "` is not a folder's name");
    if (std::find(std::begin(kReserved), std::end(kReserved), name) != std::end(kReserved))
      throw input_error(where, ": `", name, "` is the name of a file that an export writes; no component may have it");
    names.push_back(name);
  }
  return names;
}

void copy_pipeline(const fs::path& from, const fs::path& to, const std::string& library, const std::string& class_name,
                   const std::string& variant) {
  for (const std::string& name : pipeline_components(from)) copy_component(from, to, name, variant);
  Json index = read_index(from);
  if (const Json own = index.value("_class_name", Json()); own.is_array() && !own.empty() && own[0].is_string()) {
    const std::string file = own[0].get<std::string>() + ".py";
    if (runtime::is_file_name(file) && fs::exists(from / file)) copy_plain(from / file, to / file);
  }
  index.erase("_name_or_path");
  index["unet"] = {library, class_name};
  runtime::write_json(to / kIndex, index);
}

}  // namespace laptopdiff::unet
