// Files: read with a bound, written whole or not at all.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <string_view>

namespace laptopdiff::runtime {

// The whole file. Throws Error(bad_input) where it is missing, not a file, unreadable or larger than `max_bytes`.
std::string read_file(const std::filesystem::path& path, std::uint64_t max_bytes = std::uint64_t{1} << 32);

// True for the plain name of a file or folder: not empty, "." or "..", no slash, no zero byte, at most 255 bytes.
bool is_file_name(std::string_view name);

// Writes beside `path`, syncs, then renames over it, so that a reader sees the old file or the new one.
// Missing parent folders are made. Throws Error(resources) with the system's reason; nothing is left behind.
void write_file(const std::filesystem::path& path, std::string_view bytes);

// The same for a writer that streams: `fill` gets the path of the temporary file to write.
void write_file_via(const std::filesystem::path& path, const std::function<void(const std::filesystem::path&)>& fill);

// What to do when an output is already there.
enum class Existing { refuse, overwrite };

enum class OutputKind { file, folder };

// Throws Error(usage) where `path` exists and `existing` is refuse, or where it is a folder, device or pipe that a file
// is not to replace; Error(resources) where it could not be written. Leaves nothing behind.
// Called before the work starts, so that an hour's result is not lost to a typo.
void check_output(const std::filesystem::path& path, Existing existing, OutputKind kind = OutputKind::file);

// As check_output for a folder; one that is there and not empty is only replaced where it holds the file `marker`, by
// which `maker` knows its own, and a file never: --overwrite takes the place of the whole folder, and a slip of -o must
// not cost anyone's files. Throws Error(usage).
void check_own_folder(const std::filesystem::path& path, Existing existing, const std::string& marker,
                      const std::string& maker);

// Writes a folder: `fill` gets a fresh sibling folder, which takes the place of `path` when it is complete.
// Throws Error(usage) as check_output does, and with refuse also where `path` appeared while `fill` was at work.
void write_folder_via(const std::filesystem::path& path, Existing existing,
                      const std::function<void(const std::filesystem::path&)>& fill);

// Holds an exclusive lock on `folder` (made if missing) while alive, by a file that stays and marks it as one of ours.
// Throws Error(usage) where another process has it, or where it holds files and no such mark: a slip of -o must not mix
// a run into a model's folder. `maker` is the verb, for the message.
class FolderLock {
 public:
  FolderLock(const std::filesystem::path& folder, const std::string& maker);
  ~FolderLock();
  FolderLock(const FolderLock&) = delete;
  FolderLock& operator=(const FolderLock&) = delete;

  // Takes the folder away and lets go of it. The mark goes last: whoever is killed leaves a folder that is ours still.
  void remove_folder();

 private:
  std::filesystem::path folder_;
  int descriptor_ = -1;
};

// Flushes a finished file's bytes to the disk. Throws Error(resources).
void sync_file(const std::filesystem::path& path);

}  // namespace laptopdiff::runtime
