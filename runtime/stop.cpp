#include "runtime/stop.h"

#include <unistd.h>

#include <atomic>
#include <csignal>
#include <cstdlib>
#include <string_view>

#include "runtime/error.h"

namespace laptopdiff::runtime {
namespace {

volatile std::sig_atomic_t g_stop = 0;

void on_signal(int) {
  if (g_stop != 0) std::_Exit(static_cast<int>(ExitCode::interrupted));
  g_stop = 1;
}

// Reached in the middle of any instruction that reads mapped memory: there is nothing to go back to.
void on_lost_page(int) {
  static std::atomic_flag told;
  while (told.test_and_set()) ::pause();  // another thread met the same and ends the process
  constexpr std::string_view kMessage =
      "laptopdiff: a file that was being read became shorter, or its disk failed; the output is as it was\n";
  [[maybe_unused]] const auto written = ::write(STDERR_FILENO, kMessage.data(), kMessage.size());
  std::_Exit(static_cast<int>(ExitCode::bad_input));
}

}  // namespace

void install_stop_handlers() {
  struct sigaction action {};
  action.sa_handler = on_signal;
  sigemptyset(&action.sa_mask);
  action.sa_flags = SA_RESTART;
  sigaction(SIGINT, &action, nullptr);
  sigaction(SIGTERM, &action, nullptr);
  std::signal(SIGBUS, on_lost_page);
  std::signal(SIGPIPE, SIG_IGN);  // a closed pipe is a write error with a message, not a silent death
}

bool stop_requested() { return g_stop != 0; }

void throw_if_stopped(const char* what) {
  if (stop_requested()) throw Error(ExitCode::stopped, cat("stopped by a signal; ", what));
}

void throw_if_interrupted(const char* what) {
  if (stop_requested()) throw Error(ExitCode::interrupted, cat("interrupted; ", what));
}

}  // namespace laptopdiff::runtime
