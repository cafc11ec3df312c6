#include "runtime/stop.h"

#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>

#include "runtime/safetensors.h"
#include "tests/support/temporary_folder.h"
#include "tests/support/thrown.h"

#include <doctest/doctest.h>

namespace laptopdiff::runtime {
namespace {

// Runs `body` in a child, so that its signals and its flag stay there; returns the child's wait status.
template <typename Body>
int in_child(Body&& body) {
  const pid_t child = ::fork();
  if (child == 0) ::_exit(body());
  int status = 0;
  ::waitpid(child, &status, 0);
  return status;
}

TEST_CASE("without a signal nothing is stopped") {
  CHECK_FALSE(stop_requested());
  CHECK_NOTHROW(throw_if_stopped("saved"));
}

TEST_CASE("the first signal sets the flag, and the error says what was saved") {
  for (const int signal : {SIGINT, SIGTERM}) {
    const int status = in_child([signal] {
      install_stop_handlers();
      ::raise(signal);
      if (!stop_requested()) return 1;
      const auto thrown = test::thrown_by([] { throw_if_stopped("the state is in RUN; run again to go on"); });
      if (thrown.code != ExitCode::stopped) return 2;
      return thrown.says("the state is in RUN; run again to go on") ? 0 : 3;
    });
    REQUIRE(WIFEXITED(status));
    CHECK(WEXITSTATUS(status) == 0);
  }
}

TEST_CASE("a second signal ends the process as interrupted") {
  const int status = in_child([] {
    install_stop_handlers();
    ::raise(SIGINT);
    ::raise(SIGINT);
    return 0;
  });
  REQUIRE(WIFEXITED(status));
  CHECK(WEXITSTATUS(status) == static_cast<int>(ExitCode::interrupted));
}

TEST_CASE("a closed pipe is an error of the write, not a death") {
  const int status = in_child([] {
    install_stop_handlers();
    int ends[2];
    if (::pipe(ends) != 0) return 1;
    ::close(ends[0]);
    return ::write(ends[1], "x", 1) == -1 && errno == EPIPE ? 0 : 2;
  });
  REQUIRE(WIFEXITED(status));
  CHECK(WEXITSTATUS(status) == 0);
}

TEST_CASE("a mapped file that is cut short is a bad input, not a death") {
  const test::TemporaryFolder folder;
  const std::vector<std::byte> zeros(1 << 20);
  write_safetensors(folder / "a.safetensors",
                    {{"a", TensorView{DType::u8, {std::int64_t{1} << 20}, zeros.data(), zeros.size()}}});
  int ends[2];
  REQUIRE(::pipe(ends) == 0);
  const int status = in_child([&] {
    install_stop_handlers();
    ::dup2(ends[1], STDERR_FILENO);
    const auto file = SafetensorsFile::open(folder / "a.safetensors");
    std::filesystem::resize_file(file->path(), 200);
    return static_cast<int>(file->at("a").data[zeros.size() - 1]);
  });
  ::close(ends[1]);
  char text[200] = {};
  CHECK(::read(ends[0], text, sizeof text - 1) > 0);
  ::close(ends[0]);
  CHECK(std::string(text).find("a file that was being read became shorter") != std::string::npos);
  REQUIRE(WIFEXITED(status));
  CHECK(WEXITSTATUS(status) == static_cast<int>(ExitCode::bad_input));
}

}  // namespace
}  // namespace laptopdiff::runtime
