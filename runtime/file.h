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

// Writes a folder: `fill` gets a fresh sibling folder, which takes the place of `path` when it is complete.
void write_folder_via(const std::filesystem::path& path, Existing existing,
                      const std::function<void(const std::filesystem::path&)>& fill);

// Holds an exclusive lock on `folder` (made if missing) while alive. Throws Error(usage) where another process has it.
class FolderLock {
 public:
  explicit FolderLock(const std::filesystem::path& folder);
  ~FolderLock();
  FolderLock(const FolderLock&) = delete;
  FolderLock& operator=(const FolderLock&) = delete;

 private:
  int descriptor_ = -1;
};

// Flushes a finished file's bytes to the disk. Throws Error(resources).
void sync_file(const std::filesystem::path& path);

}  // namespace laptopdiff::runtime
