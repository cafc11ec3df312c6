#include "runtime/file.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <system_error>
#include <vector>

#include "runtime/error.h"

namespace laptopdiff::runtime {
namespace fs = std::filesystem;
namespace {

constexpr const char* kLockFile = ".lock";

std::string reason() { return std::strerror(errno); }

// Closes on every way out.
class Descriptor {
 public:
  explicit Descriptor(int fd) : fd_(fd) {}
  ~Descriptor() {
    if (fd_ >= 0) ::close(fd_);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  int get() const { return fd_; }

 private:
  int fd_;
};

fs::path temporary_beside(const fs::path& path) {
  return path.parent_path() / cat(".", path.filename().string(), ".", ::getpid(), ".tmp");
}

void make_parent(const fs::path& path) {
  if (path.parent_path().empty()) return;
  std::error_code error;
  fs::create_directories(path.parent_path(), error);
  if (error) throw resource_error("cannot make folder ", path.parent_path().string(), ": ", error.message());
}

// Makes the missing parents, which is the only sure test, and takes them away again: a check leaves nothing behind.
void check_parent(const fs::path& path) {
  std::vector<fs::path> missing;
  std::error_code ignored;
  for (fs::path p = path.parent_path(); !p.empty() && !fs::exists(p, ignored); p = p.parent_path())
    missing.push_back(p);
  make_parent(path);
  const fs::path parent = path.parent_path().empty() ? "." : path.parent_path();
  const bool writable = ::access(parent.c_str(), W_OK) == 0;
  const std::string why = reason();
  for (const fs::path& p : missing) ::rmdir(p.c_str());
  if (!writable) throw resource_error("cannot write into ", parent.string(), ": ", why);
}

void write_all(int fd, std::string_view bytes, const fs::path& path) {
  while (!bytes.empty()) {
    const ssize_t written = ::write(fd, bytes.data(), bytes.size());
    if (written < 0) {
      if (errno == EINTR) continue;
      throw resource_error("cannot write ", path.string(), ": ", reason());
    }
    bytes.remove_prefix(static_cast<std::size_t>(written));
  }
}

// Each takes the other's place, at once: whoever is killed, one of the two is there. File systems that cannot do that
// get two renames.
void exchange(const fs::path& a, const fs::path& b) {
  if (::renameat2(AT_FDCWD, a.c_str(), AT_FDCWD, b.c_str(), RENAME_EXCHANGE) == 0) return;
  const fs::path aside = a.string() + ".old";
  fs::rename(b, aside);
  try {
    fs::rename(a, b);
  } catch (...) {
    fs::rename(aside, b);
    throw;
  }
  fs::rename(aside, a);
}

// Throws Error(usage) where `to` is there, even if it came between a look and this call. File systems that cannot do
// both at once get a look and a rename, which fails on a folder that is not empty.
void move_to_new(const fs::path& from, const fs::path& to) {
  bool taken = false;
  if (::renameat2(AT_FDCWD, from.c_str(), AT_FDCWD, to.c_str(), RENAME_NOREPLACE) != 0) {
    taken = errno == EEXIST || fs::exists(fs::symlink_status(to));
    if (!taken) fs::rename(from, to);
  }
  if (taken) {
    throw usage_error(to.string(), " was made by another process meanwhile and is left as it is; give another -o, or ",
                      "--overwrite to replace it");
  }
}

// A rename is on the disk only when its folder is; a failure here loses no data that was there before.
void sync_parent(const fs::path& path) {
  const fs::path parent = path.parent_path().empty() ? "." : path.parent_path();
  const Descriptor fd(::open(parent.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (fd.get() >= 0) ::fsync(fd.get());
}

}  // namespace

std::string read_file(const fs::path& path, std::uint64_t max_bytes) {
  // A pipe that nobody writes to would hang an ordinary open(); here it reads as empty. One with a writer, such as
  // bash's <(...), is read to its end.
  const Descriptor fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (fd.get() < 0) throw input_error("cannot read ", path.string(), ": ", reason());
  ::fcntl(fd.get(), F_SETFL, O_RDONLY);
  struct stat info {};
  if (::fstat(fd.get(), &info) != 0) throw input_error("cannot read ", path.string(), ": ", reason());
  if (S_ISDIR(info.st_mode)) throw input_error("cannot read ", path.string(), ": it is a folder, a file was expected");
  std::string bytes;
  if (S_ISREG(info.st_mode)) {
    if (static_cast<std::uint64_t>(info.st_size) > max_bytes) {
      throw input_error(path.string(), ": ", info.st_size, " bytes, at most ", max_bytes, " are accepted");
    }
    bytes.reserve(static_cast<std::size_t>(info.st_size));
  }
  char buffer[1 << 16];
  for (;;) {
    const ssize_t got = ::read(fd.get(), buffer, sizeof buffer);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) throw input_error("cannot read ", path.string(), ": ", reason());
    if (got == 0) return bytes;
    bytes.append(buffer, static_cast<std::size_t>(got));
    if (bytes.size() > max_bytes) throw input_error(path.string(), ": more than ", max_bytes, " bytes");
  }
}

bool is_file_name(std::string_view name) {
  constexpr std::size_t kLongest = 255;
  return !name.empty() && name.size() <= kLongest && name != "." && name != ".." &&
         name.find_first_of(std::string_view("/\0", 2)) == std::string_view::npos;
}

void sync_file(const fs::path& path) {
  const Descriptor fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (fd.get() < 0 || ::fsync(fd.get()) != 0) throw resource_error("cannot sync ", path.string(), ": ", reason());
}

void write_file_via(const fs::path& path, const std::function<void(const fs::path&)>& fill) {
  make_parent(path);
  const fs::path temporary = temporary_beside(path);
  try {
    fill(temporary);
    sync_file(temporary);
    if (::rename(temporary.c_str(), path.c_str()) != 0) {
      throw resource_error("cannot write ", path.string(), ": ", reason());
    }
  } catch (...) {
    ::unlink(temporary.c_str());
    throw;
  }
  sync_parent(path);
}

void write_file(const fs::path& path, std::string_view bytes) {
  write_file_via(path, [&](const fs::path& temporary) {
    const Descriptor fd(::open(temporary.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644));
    if (fd.get() < 0) throw resource_error("cannot write ", path.string(), ": ", reason());
    write_all(fd.get(), bytes, path);
  });
}

void check_output(const fs::path& path, Existing existing, OutputKind kind) {
  if (path.empty()) throw usage_error("the output path is empty; give one with -o");
  struct stat info {};
  if (::lstat(path.c_str(), &info) == 0) {
    if (existing == Existing::refuse) {
      throw usage_error(path.string(), " already exists; give another -o, or --overwrite to replace it");
    }
    const bool plain = S_ISREG(info.st_mode) || S_ISLNK(info.st_mode);
    if (kind == OutputKind::file && !plain) {
      throw usage_error(path.string(), " is not a regular file and will not be replaced by one; give another -o");
    }
    if (!plain && !S_ISDIR(info.st_mode)) {
      throw usage_error(path.string(), " is neither a file nor a folder and will not be replaced; give another -o");
    }
  }
  check_parent(path);
}

void check_own_folder(const fs::path& path, Existing existing, const std::string& marker, const std::string& maker) {
  check_output(path, existing, OutputKind::folder);
  if (!fs::exists(fs::symlink_status(path))) return;
  if (!fs::is_directory(path))
    throw usage_error(path.string(), " is a file and will not be replaced by a folder; give another -o");
  if (fs::is_empty(path) || fs::exists(path / marker)) return;
  throw usage_error(path.string(), " holds files that `", maker, "` did not make; --overwrite will not replace it");
}

void write_folder_via(const fs::path& path, Existing existing, const std::function<void(const fs::path&)>& fill) {
  const fs::path target = path.has_filename() ? path : path.parent_path();  // a trailing slash is no name
  check_output(target, existing, OutputKind::folder);
  make_parent(target);
  const fs::path temporary = temporary_beside(target);
  std::error_code ignored;
  try {
    fs::remove_all(temporary);
    fs::create_directory(temporary);
    fill(temporary);
    if (existing == Existing::overwrite && fs::exists(fs::symlink_status(target))) {
      exchange(temporary, target);
      fs::remove_all(temporary, ignored);
    } else {
      move_to_new(temporary, target);
    }
  } catch (const fs::filesystem_error& error) {
    fs::remove_all(temporary, ignored);
    throw resource_error("cannot write ", target.string(), ": ", error.code().message());
  } catch (...) {
    fs::remove_all(temporary, ignored);
    throw;
  }
  sync_parent(target);
}

FolderLock::FolderLock(const fs::path& folder, const std::string& maker) : folder_(folder) {
  std::error_code error;
  fs::create_directories(folder, error);
  if (error) throw resource_error("cannot make folder ", folder.string(), ": ", error.message());
  const fs::path file = folder / kLockFile;
  if (!fs::exists(file, error) && !fs::is_empty(folder, error) && !error) {
    throw usage_error(folder.string(), " holds files that `", maker, "` did not make; choose another folder");
  }
  descriptor_ = ::open(file.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
  if (descriptor_ < 0) throw resource_error("cannot write ", file.string(), ": ", reason());
  if (::flock(descriptor_, LOCK_EX | LOCK_NB) != 0) {
    ::close(descriptor_);
    throw usage_error(folder.string(),
                      " is in use by another laptopdiff process; wait for it or choose another folder");
  }
}

FolderLock::~FolderLock() { ::close(descriptor_); }

void FolderLock::remove_folder() {
  std::error_code ignored;
  std::vector<fs::path> rest;
  for (fs::directory_iterator entry(folder_, ignored), end; !ignored && entry != end; entry.increment(ignored)) {
    if (entry->path().filename() != kLockFile) rest.push_back(entry->path());
  }
  for (const fs::path& path : rest) fs::remove_all(path, ignored);
  fs::remove_all(folder_, ignored);
}

}  // namespace laptopdiff::runtime
