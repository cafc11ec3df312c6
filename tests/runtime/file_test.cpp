#include "runtime/file.h"

#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <stdexcept>

#include "tests/support/temporary_folder.h"
#include "tests/support/thrown.h"

#include <doctest/doctest.h>

namespace laptopdiff::runtime {
namespace {

namespace fs = std::filesystem;
using test::entry_count;
using test::get_bytes;
using test::put_bytes;
using test::TemporaryFolder;
using test::thrown_by;

TEST_CASE("a file is read whole, whatever bytes it holds") {
  const TemporaryFolder folder;
  const std::string bytes = std::string("a\0b\n", 4) + std::string(200'000, '\xff');
  put_bytes(folder / "f", bytes);
  CHECK(read_file(folder / "f") == bytes);
  put_bytes(folder / "empty", "");
  CHECK(read_file(folder / "empty").empty());
}

TEST_CASE("a file that cannot be read is bad input, with the reason") {
  const TemporaryFolder folder;
  const auto missing = thrown_by([&] { read_file(folder / "none"); });
  CHECK(missing.code == ExitCode::bad_input);
  CHECK(missing.message == "cannot read " + (folder / "none").string() + ": No such file or directory");
  const auto is_folder = thrown_by([&] { read_file(folder.path()); });
  CHECK(is_folder.code == ExitCode::bad_input);
  CHECK(is_folder.says("it is a folder, a file was expected"));
  put_bytes(folder / "f", "x");
  CHECK(thrown_by([&] { read_file(folder / "f/below"); }).says("Not a directory"));
}

TEST_CASE("a file larger than the bound is refused, also where its size is not known before") {
  const TemporaryFolder folder;
  put_bytes(folder / "f", "12345");
  CHECK(read_file(folder / "f", 5) == "12345");
  const auto thrown = thrown_by([&] { read_file(folder / "f", 4); });
  CHECK(thrown.code == ExitCode::bad_input);
  CHECK(thrown.says("5 bytes, at most 4 are accepted"));
  CHECK(thrown_by([] { read_file("/dev/zero", 1 << 20); }).says("more than 1048576 bytes"));
}

TEST_CASE("a written file is there whole and alone") {
  const TemporaryFolder folder;
  write_file(folder / "a/b/f", "text");
  CHECK(get_bytes(folder / "a/b/f") == "text");
  CHECK(entry_count(folder / "a/b") == 1);
  write_file(folder / "a/b/f", "");
  CHECK(get_bytes(folder / "a/b/f").empty());
  CHECK(entry_count(folder / "a/b") == 1);
}

TEST_CASE("a file name without a folder is written here") {
  const TemporaryFolder folder;
  const fs::path before = fs::current_path();
  fs::current_path(folder.path());
  CHECK_NOTHROW(write_file("f", "x"));
  CHECK_NOTHROW(check_output("g", Existing::refuse));
  CHECK_NOTHROW(write_folder_via("d", Existing::refuse, [](const fs::path& path) { put_bytes(path / "f", "y"); }));
  fs::current_path(before);
  CHECK(get_bytes(folder / "f") == "x");
  CHECK(get_bytes(folder / "d/f") == "y");
}

TEST_CASE("a writer that fails leaves the old file and nothing else") {
  const TemporaryFolder folder;
  put_bytes(folder / "f", "old");
  CHECK_THROWS_AS(write_file_via(folder / "f",
                                 [](const fs::path& path) {
                                   put_bytes(path, "half");
                                   throw std::runtime_error("broke");
                                 }),
                  std::runtime_error);
  CHECK(get_bytes(folder / "f") == "old");
  CHECK(entry_count(folder.path()) == 1);
}

TEST_CASE("while a file is written, readers see the old one") {
  const TemporaryFolder folder;
  put_bytes(folder / "f", "old");
  write_file_via(folder / "f", [&](const fs::path& path) {
    put_bytes(path, "new");
    CHECK(get_bytes(folder / "f") == "old");
    CHECK(path.parent_path() == folder.path());
  });
  CHECK(get_bytes(folder / "f") == "new");
}

TEST_CASE("a place that cannot be written is a matter of resources, with the path") {
  const TemporaryFolder folder;
  put_bytes(folder / "file", "x");
  const auto below_file = thrown_by([&] { write_file(folder / "file/out.json", "y"); });
  CHECK(below_file.code == ExitCode::resources);
  CHECK(below_file.says((folder / "file").string()));
  const auto over_folder = thrown_by([&] {
    fs::create_directories(folder / "out/full");
    write_file(folder / "out", "y");
  });
  CHECK(over_folder.code == ExitCode::resources);
  CHECK(over_folder.says("cannot write " + (folder / "out").string() + ": Is a directory"));
  CHECK(entry_count(folder.path()) == 2);
  CHECK(thrown_by([] { write_file("/proc/laptopdiff/out", "y"); }).code == ExitCode::resources);
  CHECK(thrown_by([] { write_file("/proc/out", "y"); }).code == ExitCode::resources);
}

// Runs `body` in a child whose files may not grow beyond `bytes`: a full disk that needs no root.
template <typename Body>
int with_file_limit(rlim_t bytes, Body&& body) {
  const pid_t child = ::fork();
  if (child == 0) {
    std::signal(SIGXFSZ, SIG_IGN);
    const rlimit limit{bytes, bytes};
    ::setrlimit(RLIMIT_FSIZE, &limit);
    ::_exit(body());
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

TEST_CASE("a disk that fills up while writing is a matter of resources and leaves the old file") {
  const TemporaryFolder folder;
  put_bytes(folder / "f", "old");
  const int result = with_file_limit(1000, [&] {
    const auto thrown = thrown_by([&] { write_file(folder / "f", std::string(5000, 'x')); });
    return thrown.code == ExitCode::resources && thrown.says("cannot write") ? 0 : 1;
  });
  CHECK(result == 0);
  CHECK(get_bytes(folder / "f") == "old");
  CHECK(entry_count(folder.path()) == 1);
}

TEST_CASE("an existing output is refused unless it may be replaced") {
  const TemporaryFolder folder;
  put_bytes(folder / "f", "x");
  const auto thrown = thrown_by([&] { check_output(folder / "f", Existing::refuse); });
  CHECK(thrown.code == ExitCode::usage);
  CHECK(thrown.says("already exists; give another -o, or --overwrite to replace it"));
  CHECK_NOTHROW(check_output(folder / "f", Existing::overwrite));
  CHECK_NOTHROW(check_output(folder / "g", Existing::refuse));
  fs::create_symlink("nowhere", folder / "dangling");
  CHECK(thrown_by([&] { check_output(folder / "dangling", Existing::refuse); }).code == ExitCode::usage);
}

TEST_CASE("an output that could not be written is refused before the work starts") {
  const TemporaryFolder folder;
  put_bytes(folder / "file", "x");
  CHECK(thrown_by([] { check_output("", Existing::refuse); }).code == ExitCode::usage);
  CHECK(thrown_by([] { check_output("", Existing::refuse); }).says("the output path is empty"));
  CHECK(thrown_by([&] { check_output(folder / "file/out", Existing::refuse); }).code == ExitCode::resources);
  CHECK(thrown_by([] { check_output("/proc/none/out", Existing::overwrite); }).code == ExitCode::resources);
}

TEST_CASE("checking an output leaves nothing behind") {
  const TemporaryFolder folder;
  check_output(folder / "a/b/out.json", Existing::refuse);
  CHECK_FALSE(fs::exists(folder / "a"));
}

TEST_CASE("a file replaces files only") {
  const TemporaryFolder folder;
  fs::create_directory(folder / "d");
  const auto thrown = thrown_by([&] { check_output(folder / "d", Existing::overwrite); });
  CHECK(thrown.code == ExitCode::usage);
  CHECK(thrown.says("is not a regular file and will not be replaced"));
  CHECK(thrown_by([] { check_output("/dev/null", Existing::overwrite); }).code == ExitCode::usage);
  CHECK(thrown_by([] { check_output("/dev/null", Existing::overwrite, OutputKind::folder); }).code == ExitCode::usage);
  CHECK_NOTHROW(check_output(folder / "d", Existing::overwrite, OutputKind::folder));
}

void put_two(const fs::path& path) {
  put_bytes(path / "one", "1");
  fs::create_directory(path / "sub");
  put_bytes(path / "sub/two", "2");
}

TEST_CASE("a folder appears whole, or replaces the old one whole") {
  const TemporaryFolder folder;
  write_folder_via(folder / "new/out", Existing::refuse, [&](const fs::path& path) {
    CHECK_FALSE(fs::exists(folder / "new/out"));
    put_two(path);
  });
  CHECK(get_bytes(folder / "new/out/sub/two") == "2");
  CHECK(entry_count(folder / "new") == 1);

  const auto refused = thrown_by([&] { write_folder_via(folder / "new/out", Existing::refuse, put_two); });
  CHECK(refused.code == ExitCode::usage);

  write_folder_via(folder / "new/out", Existing::overwrite,
                   [](const fs::path& path) { put_bytes(path / "three", "3"); });
  CHECK(entry_count(folder / "new/out") == 1);
  CHECK(get_bytes(folder / "new/out/three") == "3");
  CHECK(entry_count(folder / "new") == 1);
}

TEST_CASE("a folder that another process finished meanwhile is left as it is") {
  const TemporaryFolder folder;
  const auto late = [&](Existing existing) {
    return thrown_by([&] {
      write_folder_via(folder / "out", existing, [&](const fs::path& path) {
        put_two(path);
        fs::create_directories(folder / "out");
        put_bytes(folder / "out/first", "1");
      });
    });
  };
  const auto refused = late(Existing::refuse);
  CHECK(refused.code == ExitCode::usage);
  CHECK(refused.says("was made by another process meanwhile"));
  CHECK(get_bytes(folder / "out/first") == "1");
  CHECK(entry_count(folder / "out") == 1);
  CHECK(entry_count(folder.path()) == 1);

  write_folder_via(folder / "out", Existing::overwrite, put_two);
  CHECK_FALSE(fs::exists(folder / "out/first"));
}

TEST_CASE("only a maker's own folder is replaced by its next one") {
  const TemporaryFolder folder;
  const auto check = [&](const char* name) {
    return thrown_by([&] { check_own_folder(folder / name, Existing::overwrite, "marker", "maker"); });
  };
  put_bytes(folder / "file", "x");
  fs::create_symlink("file", folder / "link");
  for (const char* name : {"file", "link"}) {
    CHECK(check(name).code == ExitCode::usage);
    CHECK(check(name).says("is a file and will not be replaced by a folder"));
  }
  fs::create_directory(folder / "own");
  CHECK_NOTHROW(check_own_folder(folder / "own", Existing::overwrite, "marker", "maker"));
  put_bytes(folder / "own/other", "x");
  CHECK(check("own").says("did not make"));
  put_bytes(folder / "own/marker", "x");
  CHECK_NOTHROW(check_own_folder(folder / "own", Existing::overwrite, "marker", "maker"));
  CHECK_NOTHROW(check_own_folder(folder / "new", Existing::overwrite, "marker", "maker"));
}

TEST_CASE("a folder's name may end with a slash") {
  const TemporaryFolder folder;
  write_folder_via(folder / "out/", Existing::refuse, put_two);
  CHECK(get_bytes(folder / "out/one") == "1");
  CHECK(thrown_by([&] { write_folder_via(folder / "out/", Existing::refuse, put_two); }).code == ExitCode::usage);
  CHECK(entry_count(folder.path()) == 1);
}

TEST_CASE("a folder may replace a file") {
  const TemporaryFolder folder;
  put_bytes(folder / "out", "x");
  write_folder_via(folder / "out", Existing::overwrite, put_two);
  CHECK(get_bytes(folder / "out/one") == "1");
  CHECK(entry_count(folder.path()) == 1);
}

TEST_CASE("a folder writer that fails leaves the old folder and nothing else") {
  const TemporaryFolder folder;
  write_folder_via(folder / "out", Existing::refuse, put_two);
  CHECK_THROWS_AS(write_folder_via(folder / "out", Existing::overwrite,
                                   [](const fs::path& path) {
                                     put_bytes(path / "half", "x");
                                     throw std::runtime_error("broke");
                                   }),
                  std::runtime_error);
  CHECK(get_bytes(folder / "out/sub/two") == "2");
  CHECK(entry_count(folder.path()) == 1);
}

TEST_CASE("an error of the file system inside a folder writer is a matter of resources") {
  const TemporaryFolder folder;
  const auto thrown = thrown_by([&] {
    write_folder_via(folder / "out", Existing::refuse,
                     [](const fs::path& path) { fs::create_directory(path / "no/where"); });
  });
  CHECK(thrown.code == ExitCode::resources);
  CHECK(thrown.says("cannot write " + (folder / "out").string()));
  CHECK(entry_count(folder.path()) == 0);
}

TEST_CASE("a folder below a file cannot be written") {
  const TemporaryFolder folder;
  put_bytes(folder / "file", "x");
  const auto thrown = thrown_by([&] { write_folder_via(folder / "file/out", Existing::refuse, put_two); });
  CHECK(thrown.code == ExitCode::resources);
}

TEST_CASE("a folder has one lock, which its holder's end frees") {
  const TemporaryFolder folder;
  {
    const FolderLock lock(folder / "run", "tests");
    const auto thrown = thrown_by([&] { FolderLock second(folder / "run", "tests"); });
    CHECK(thrown.code == ExitCode::usage);
    CHECK(thrown.says((folder / "run").string() + " is in use by another laptopdiff process"));
    CHECK_NOTHROW(FolderLock(folder / "other", "tests"));
  }
  CHECK_NOTHROW(FolderLock(folder / "run", "tests"));
}

TEST_CASE("a lock is held against another process, and dies with its holder") {
  const TemporaryFolder folder;
  int ready[2], go[2];
  REQUIRE(::pipe(ready) == 0);
  REQUIRE(::pipe(go) == 0);
  const pid_t child = ::fork();
  if (child == 0) {
    const FolderLock lock(folder.path(), "tests");
    char byte = 'x';
    const bool talked = ::write(ready[1], &byte, 1) == 1 && ::read(go[0], &byte, 1) == 1;
    ::_exit(talked ? 0 : 1);  // without running the lock's destructor, as a killed process would
  }
  char byte = 0;
  REQUIRE(::read(ready[0], &byte, 1) == 1);
  CHECK(thrown_by([&] { FolderLock second(folder.path(), "tests"); }).code == ExitCode::usage);
  REQUIRE(::write(go[1], &byte, 1) == 1);
  int status = 0;
  ::waitpid(child, &status, 0);
  for (const int end : {ready[0], ready[1], go[0], go[1]}) ::close(end);
  CHECK_NOTHROW(FolderLock(folder.path(), "tests"));
}

TEST_CASE("a locked folder goes with all it holds, and its mark goes last") {
  const TemporaryFolder folder;
  FolderLock lock(folder / "run", "tests");
  put_bytes(folder / "run/piece", "x");
  std::filesystem::create_directory(folder / "run/more");
  lock.remove_folder();
  CHECK_FALSE(std::filesystem::exists(folder / "run"));
}

TEST_CASE("a folder that cannot be made cannot be locked") {
  const TemporaryFolder folder;
  put_bytes(folder / "file", "x");
  CHECK(thrown_by([&] { FolderLock lock(folder / "file/run", "tests"); }).code == ExitCode::resources);
}

TEST_CASE("a folder with anyone else's files is not locked, and nothing is put into it") {
  const TemporaryFolder folder;
  put_bytes(folder / "config.json", "x");
  const auto thrown = thrown_by([&] { FolderLock lock(folder.path(), "distill"); });
  CHECK(thrown.code == ExitCode::usage);
  CHECK(thrown.says("holds files that `distill` did not make"));
  CHECK_FALSE(std::filesystem::exists(folder / ".lock"));
}

TEST_CASE("syncing a file that is not there is an error") {
  const auto thrown = thrown_by([] { sync_file("/nowhere/f"); });
  CHECK(thrown.code == ExitCode::resources);
  CHECK(thrown.says("cannot sync /nowhere/f: No such file"));
}

}  // namespace
}  // namespace laptopdiff::runtime
