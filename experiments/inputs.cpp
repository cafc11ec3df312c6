#include "experiments/inputs.h"

#include <algorithm>
#include <sstream>

#include "runtime/error.h"
#include "unet/lora.h"

namespace laptopdiff::experiments {
namespace fs = std::filesystem;
namespace {

using runtime::Json;
using runtime::usage_error;

std::vector<std::string> files_of(const std::string& setting, const std::string& text) {
  if (text.empty()) return {};
  if (setting == "lora") return {unet::parse_lora_source(text).file.string()};
  // Only what these are looked for in it: the folder itself may hold anything else.
  if (setting == "models") return {text + "/clip", text + "/pick", text + "/classifier"};
  return split_files(text);
}

void collect(const Json& settings, std::vector<std::string>& files) {
  for (const auto& [name, value] : settings.items()) {
    if (value.is_object()) {
      collect(value, files);
      continue;
    }
    if (!input_settings().contains(name)) continue;
    for (const Json& entry : value.is_array() ? value : Json::array({value})) {
      if (!entry.is_string()) continue;
      for (std::string& file : files_of(name, entry.get<std::string>())) files.push_back(std::move(file));
    }
  }
}

// A name that no file can have is itself: whoever opens it says what is wrong with it.
fs::path resolved(const fs::path& path) {
  std::error_code error;
  const fs::path place = fs::weakly_canonical(path, error);
  return error ? path.lexically_normal() : place;
}

// Where the entry itself is, and what it leads to where it is a link: either may be what another name means.
std::vector<fs::path> places_of(const fs::path& path) {
  const fs::path name = path.has_filename() ? path : path.parent_path();  // a trailing slash is no name
  const fs::path own = resolved(fs::absolute(name).parent_path()) / name.filename();
  return {own.lexically_normal(), resolved(name)};
}

bool begins_with(const fs::path& path, const fs::path& folder) {
  return std::mismatch(folder.begin(), folder.end(), path.begin(), path.end()).first == folder.end();
}

}  // namespace

const std::set<std::string>& input_settings() {
  static const std::set<std::string> kNames = {
      "model",   "pipeline", "teacher",          "spec",        "specs",  "scores",          "data", "unet",
      "images",  "models",   "labels",           "calibration", "folder", "reference",       "init", "prompts",
      "latents", "latency",  "negative_prompts", "inputs",      "lora",   "pipeline_config", "base", "curves",
      "diff"};
  return kNames;
}

std::vector<std::string> split_files(const std::string& text) {
  std::error_code unreadable;
  if (fs::exists(text, unreadable)) return {text};
  std::vector<std::string> files;
  std::stringstream parts(text);
  for (std::string part; std::getline(parts, part, ',');) files.push_back(part);
  return files;
}

void check_apart(const fs::path& output, const Json& settings, Holds holds) {
  std::vector<std::string> inputs;
  collect(settings, inputs);
  std::error_code unreadable;
  const bool stays_out = holds == Holds::copies || fs::exists(fs::symlink_status(output, unreadable));
  for (const std::string& input : inputs) {
    for (const fs::path& from : places_of(input)) {
      for (const fs::path& to : places_of(output)) {
        if (from == to) throw usage_error(output.string(), " is read as well; give another -o");
        if (begins_with(from, to))
          throw usage_error(output.string(), " holds ", input, ", which it would replace; give another -o");
        if (stays_out && begins_with(to, from))
          throw usage_error(output.string(), " lies in ", input, ", which is read; give another -o");
      }
    }
  }
}

}  // namespace laptopdiff::experiments
