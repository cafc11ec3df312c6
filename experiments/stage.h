// Stages of a sweep: a verb with its settings, run once for equal contents.
//
// A stage's key is the SHA-256 of the verb, its settings, and the contents of the files and folders its settings name
// (not their paths). Its folder DIR/stages/VERB-KEY holds settings.json (the verb's --config), the output, and
// done.json once it is complete; a stage that has done.json is never run again. Every stage is a command that a person
// can type.
#pragma once

#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "experiments/command.h"

namespace laptopdiff::experiments {

struct StageRequest {
  std::string verb;
  Json settings;       // without the output
  std::string output;  // file or folder name inside the stage's folder
  // Settings that do not decide the result and are not part of the key.
  Json beside = Json::object();
};

struct StageResult {
  std::filesystem::path folder, output;
  double seconds = 0;  // of the run that completed it
  bool reused = false;
};

class StageRunner {
 public:
  // Stages go to `folder`/stages; `common` holds flags that every stage gets (device, dtype, threads, quiet).
  StageRunner(std::filesystem::path folder, Json common) : folder_(std::move(folder)), common_(std::move(common)) {}

  // Runs the stage unless it is complete. Errors of the verb come through with the stage's name before them.
  StageResult run(const StageRequest& request);

  // What a stage's key would have for these inputs: paths replaced by their contents' digests.
  std::string digest(const Json& settings);

  bool ran_any() const { return ran_any_; }          // false: all was there already
  double seconds_of(const std::string& verb) const;  // spent by all complete stages of a verb that were asked for

 private:
  std::filesystem::path place(const StageRequest& request);
  Json with_contents(Json settings);  // input paths replaced by their contents' digests
  std::string input_digest(const std::string& setting, const std::string& text);
  std::string content_digest(const std::filesystem::path& path);

  std::filesystem::path folder_;
  Json common_;
  std::map<std::string, std::string> digests_;  // of inputs seen in this process
  std::vector<std::pair<std::string, double>> timings_;
  bool ran_any_ = false;
};

}  // namespace laptopdiff::experiments
