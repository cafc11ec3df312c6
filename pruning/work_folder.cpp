#include "pruning/work_folder.h"

#include <torch/types.h>

#include "runtime/error.h"
#include "runtime/hash.h"
#include "runtime/processes.h"
#include "runtime/progress.h"

namespace laptopdiff::pruning {
namespace fs = std::filesystem;
namespace {

using runtime::cat;
using runtime::Json;

constexpr const char* kWorkFormat = "laptopdiff.partial/1";
constexpr const char* kKeyFile = "run.json";
constexpr const char* kPieceExtension = ".safetensors";

// "its `dtype` is "bf16", this run's is "f32""; "" where the keys agree.
std::string first_difference(const Json& theirs, const Json& ours) {
  for (const auto& [name, value] : ours.items()) {
    const Json other = theirs.contains(name) ? theirs[name] : Json();
    if (other != value) return cat("its `", name, "` is ", other.dump(), ", this run's is ", value.dump());
  }
  return theirs == ours ? "" : "it has settings that this run has not";
}

// Why the work in a folder is not this run's; "" where it is, or where there is none.
std::string why_other(const fs::path& file, const Json& key) {
  if (!fs::exists(file)) return "";
  try {
    const Json json = runtime::read_json(file);
    runtime::ObjectReader in(json, file.string());
    if (const auto format = in.required<std::string>("format"); format != kWorkFormat)
      return cat("its format is ", format);
    return first_difference(in.raw("key"), key);
  } catch (const runtime::Error& error) {
    return error.what();
  }
}

}  // namespace

WorkFolder::WorkFolder(const fs::path& folder, const Json& key, OtherWork other)
    : folder_(folder), run_(runtime::sha256(key.dump())) {
  if (runtime::processes().first()) {
    lock_ = std::make_unique<runtime::FolderLock>(folder, "score");
    prepare(key, other);
  }
  runtime::barrier();
  const fs::path written = folder_ / kKeyFile;
  if (!fs::exists(written) || !why_other(written, key).empty()) {
    throw runtime::resource_error("process ", runtime::processes().rank, " does not see what the first one wrote into ",
                                  folder.string(), "; all processes need one shared folder");
  }
}

void WorkFolder::prepare(const Json& key, OtherWork other) const {
  const std::string why = why_other(folder_ / kKeyFile, key);
  if (!why.empty() && other == OtherWork::refuse) {
    throw runtime::usage_error(
        folder_.string(), " holds the unfinished work of another run: ", why,
        "; finish that one with its own settings, give another -o, or --overwrite to start anew");
  }
  if (!why.empty()) {
    runtime::say(cat(folder_.string(), ": work of another run is thrown away: ", why));
    for (const auto& entry : fs::directory_iterator(folder_)) {
      if (entry.path().extension() == kPieceExtension) fs::remove(entry.path());
    }
  }
  runtime::write_json(folder_ / kKeyFile, {{"format", kWorkFormat}, {"key", key}});
}

bool WorkFolder::is_empty() const {
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(folder_, error)) {
    if (entry.path().extension() == kPieceExtension) return false;
  }
  return !error;
}

WorkFolder::~WorkFolder() {
  if (lock_ && is_empty()) lock_->remove_folder();
}

std::optional<runtime::TensorMap> WorkFolder::load(const std::string& piece) const {
  if (folder_.empty()) {
    const auto found = kept_.find(piece);
    return found == kept_.end() ? std::nullopt : std::optional(found->second);
  }
  const fs::path path = file(piece);
  if (!fs::exists(path)) return std::nullopt;
  std::string why = "it is of another run";
  try {
    const auto opened = runtime::SafetensorsFile::open(path);
    const auto run = opened->metadata().find("run");
    if (run != opened->metadata().end() && run->second == run_) {
      runtime::TensorMap tensors;
      for (const auto& [name, view] : opened->tensors()) tensors.emplace(name, runtime::view_tensor(opened, view));
      return tensors;
    }
  } catch (const runtime::Error& error) {
    why = error.what();
  }
  runtime::warn(cat("a finished piece cannot be used and is measured again: ", path.string(), ": ", why));
  std::error_code ignored;
  fs::remove(path, ignored);
  return std::nullopt;
}

void WorkFolder::store(const std::string& piece, const runtime::TensorMap& tensors) {
  if (folder_.empty()) kept_[piece] = tensors;
  else runtime::write_tensors(file(piece), tensors, {{"run", run_}});
}

void WorkFolder::drop(const std::string& piece) {
  kept_.erase(piece);
  std::error_code ignored;
  if (!folder_.empty()) fs::remove(file(piece), ignored);
}

void WorkFolder::remove() {
  if (folder_.empty()) return;
  runtime::barrier();
  if (lock_) lock_->remove_folder();
  lock_.reset();
}

}  // namespace laptopdiff::pruning
