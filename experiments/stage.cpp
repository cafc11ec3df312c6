#include "experiments/stage.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <iostream>
#include <set>

#include "experiments/inputs.h"
#include "runtime/error.h"
#include "runtime/hash.h"
#include "runtime/progress.h"
#include "unet/lora.h"

namespace laptopdiff::experiments {
namespace fs = std::filesystem;
namespace {

using runtime::cat;

constexpr std::size_t kKeyShown = 12;

// Sends stdout to nowhere while it lives: a stage's table is in its file.
class SilentStdout {
 public:
  SilentStdout() {
    std::cout.flush();
    std::fflush(stdout);
    saved_ = ::dup(STDOUT_FILENO);
    const int null = ::open("/dev/null", O_WRONLY);
    if (null >= 0) {
      ::dup2(null, STDOUT_FILENO);
      ::close(null);
    }
  }
  ~SilentStdout() {
    std::cout.flush();
    std::fflush(stdout);
    ::dup2(saved_, STDOUT_FILENO);
    ::close(saved_);
  }
  SilentStdout(const SilentStdout&) = delete;
  SilentStdout& operator=(const SilentStdout&) = delete;

 private:
  int saved_;
};

const Verb& find_verb(const std::string& name) {
  for (const Verb& verb : verbs()) {
    if (name == verb.name) return verb;
  }
  throw runtime::usage_error("sweep: no verb `", name, "`");
}

}  // namespace

std::string StageRunner::content_digest(const fs::path& path) {
  const std::string name = fs::absolute(path).lexically_normal().string();
  if (const auto known = digests_.find(name); known != digests_.end()) return known->second;
  if (!fs::exists(path)) throw runtime::input_error("sweep: ", path.string(), " does not exist");
  runtime::Sha256 hash;
  if (fs::is_directory(path)) {
    std::vector<fs::path> files;
    for (const auto& entry : fs::recursive_directory_iterator(path, fs::directory_options::follow_directory_symlink)) {
      if (entry.is_regular_file()) files.push_back(entry.path());
    }
    std::sort(files.begin(), files.end());
    for (const fs::path& file : files)
      hash.add(cat(fs::relative(file, path).string(), " ", runtime::sha256_file(file), "\n"));
  } else {
    hash.add(runtime::sha256_file(path));
  }
  return digests_[name] = hash.hex();
}

std::string StageRunner::input_digest(const std::string& setting, const std::string& text) {
  if (setting != "lora") return content_digest(text);
  const unet::LoraSource source = unet::parse_lora_source(text);
  return cat(content_digest(source.file), " ", source.scale);
}

Json StageRunner::with_contents(Json settings) {
  for (auto& [key, value] : settings.items()) {
    if (value.is_object()) {
      value = with_contents(value);
    } else if (value.is_array() && input_settings().contains(key)) {
      for (Json& file : value) {
        if (file.is_string()) file = input_digest(key, file.get<std::string>());
      }
    } else if (value.is_string() && input_settings().contains(key) && !value.get_ref<const std::string&>().empty()) {
      value = input_digest(key, value.get<std::string>());
    }
  }
  return settings;
}

fs::path StageRunner::place(const StageRequest& request) {
  // Device and compute type change the numbers; threads and the like should not.
  Json identity = {{"verb", request.verb}, {"settings", with_contents(request.settings)}, {"output", request.output}};
  for (const char* key : {"device", "dtype"}) {
    if (common_.contains(key)) identity[key] = common_[key];
  }
  return folder_ / "stages" / cat(request.verb, "-", runtime::sha256(identity.dump()).substr(0, kKeyShown));
}

std::string StageRunner::digest(const Json& settings) {
  return runtime::sha256(with_contents(settings).dump()).substr(0, kKeyShown);
}

StageResult StageRunner::run(const StageRequest& request) {
  StageResult result;
  result.folder = place(request);
  result.output = result.folder / request.output;
  const fs::path done = result.folder / "done.json";
  if (fs::exists(done) && fs::exists(result.output)) {
    result.seconds = runtime::read_json(done).value("seconds", 0.0);
    result.reused = true;
    timings_.emplace_back(result.folder.filename().string(), result.seconds);
    return result;
  }
  ran_any_ = true;
  Json settings = request.settings;
  settings.update(common_);
  settings.update(request.beside);
  settings["output"] = result.output.string();
  settings["overwrite"] = request.verb != "distill";  // a killed distill continues; the others start over
  runtime::write_json(result.folder / "settings.json", settings);
  Invocation invocation{request.verb, {"--config", (result.folder / "settings.json").string()}, ""};
  invocation.command_line = cat("laptopdiff ", request.verb, " --config ", invocation.arguments[1]);
  runtime::say(cat("== ", result.folder.filename().string()));
  const auto began = std::chrono::steady_clock::now();
  try {
    const SilentStdout silent;
    find_verb(request.verb).run(invocation);
  } catch (const runtime::Error& error) {
    // The finished stages are kept, so an interrupted one is a stopped sweep.
    const bool interrupted = error.code() == runtime::ExitCode::interrupted;
    throw runtime::Error(interrupted ? runtime::ExitCode::stopped : error.code(),
                         cat("stage ", result.folder.filename().string(), ": ", error.what()));
  }
  result.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count();
  runtime::write_json(done, {{"seconds", result.seconds}, {"output", request.output}});
  timings_.emplace_back(result.folder.filename().string(), result.seconds);
  return result;
}

double StageRunner::seconds_of(const std::string& verb) const {
  double seconds = 0;
  std::set<std::string> counted;
  for (const auto& [name, spent] : timings_) {
    if (name.rfind(verb + "-", 0) == 0 && counted.insert(name).second) seconds += spent;
  }
  return seconds;
}

}  // namespace laptopdiff::experiments
