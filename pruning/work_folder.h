// Finished pieces of a run, written down one by one: a run that was killed goes on from them and ends with the same
// bytes.
//
// Each piece is a small safetensors file that appears whole or not at all and carries the hash of its run's key
// (weights, calibration, dtype, ...), so that pieces of two runs can never be mixed. With several processes the folder
// must be one that all of them see.
#pragma once

#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <string>

#include "runtime/file.h"
#include "runtime/json.h"
#include "runtime/tensors.h"

namespace laptopdiff::pruning {

// What to do with the unfinished work of a run with another key.
enum class OtherWork { refuse, discard };

class WorkFolder {
 public:
  // Keeps pieces in memory: nothing is written, and there must be one process.
  WorkFolder() = default;
  // Makes or continues `folder`; called by all processes. Throws Error(usage) where another process works there, where
  // it holds another run's work (naming what differs) or files of someone else's; Error(resources) where it cannot be
  // written, or where a process does not see what the first one wrote.
  WorkFolder(const std::filesystem::path& folder, const runtime::Json& key, OtherWork other);
  // A folder in which nothing was finished goes.
  ~WorkFolder();
  WorkFolder(const WorkFolder&) = delete;
  WorkFolder& operator=(const WorkFolder&) = delete;

  // Nothing where the piece is not there. A damaged piece, or another run's, is taken away with a warning.
  std::optional<runtime::TensorMap> load(const std::string& piece) const;
  void store(const std::string& piece, const runtime::TensorMap& tensors);
  void drop(const std::string& piece);

  // The result is written: takes the folder away. Called by all processes.
  void remove();

  const std::filesystem::path& path() const { return folder_; }

 private:
  std::filesystem::path file(const std::string& piece) const { return folder_ / (piece + ".safetensors"); }
  void prepare(const runtime::Json& key, OtherWork other) const;
  bool is_empty() const;

  std::filesystem::path folder_;                    // empty: in memory
  std::map<std::string, runtime::TensorMap> kept_;  // in memory
  std::string run_;                                 // hash of the key
  std::unique_ptr<runtime::FolderLock> lock_;       // of the first process
};

}  // namespace laptopdiff::pruning
