// One exception type for everything a user can cause, with the exit code the command line promises for it.
//
// Library code throws; only experiments/main.cpp prints and exits. A message says what was expected, what came,
// where, and what to do about it.
#pragma once

#include <sstream>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

namespace laptopdiff::runtime {

enum class ExitCode : int {
  ok = 0,
  usage = 2,         // bad flags, existing output, impossible budget, no such form
  bad_input = 3,     // bad input file, or a spec/scores/calibration of another base
  non_finite = 4,    // NaN or Inf where a number is needed
  resources = 5,     // out of memory or disk, or unwritable
  stopped = 75,      // stopped by a signal with state saved
  interrupted = 130  // interrupted, nothing to save
};

class Error : public std::runtime_error {
 public:
  Error(ExitCode code, const std::string& message) : std::runtime_error(message), code_(code) {}
  ExitCode code() const noexcept { return code_; }

 private:
  ExitCode code_;
};

// Joins its arguments with operator<<.
template <typename... Args>
std::string cat(const Args&... args) {
  std::ostringstream out;
  (out << ... << args);
  return out.str();
}

template <typename... Args>
Error usage_error(const Args&... args) {
  return Error(ExitCode::usage, cat(args...));
}
template <typename... Args>
Error input_error(const Args&... args) {
  return Error(ExitCode::bad_input, cat(args...));
}
template <typename... Args>
Error non_finite_error(const Args&... args) {
  return Error(ExitCode::non_finite, cat(args...));
}
template <typename... Args>
Error resource_error(const Args&... args) {
  return Error(ExitCode::resources, cat(args...));
}

// The candidates nearest to `name` by edit distance (at most `most`, none further than half of the name's length).
std::vector<std::string> near_names(std::string_view name, const std::vector<std::string>& candidates,
                                    std::size_t most = 3);

// " (did you mean `a` or `b`?)", or the whole list where it is short, or "" where nothing helps.
std::string did_you_mean(std::string_view name, const std::vector<std::string>& candidates);

// "a, b, c"
std::string join(const std::vector<std::string>& words, std::string_view separator = ", ");
// The first `most` words, joined, and how many more there are.
std::string listing(const std::vector<std::string>& words, std::size_t most = 12, std::string_view separator = ", ");

}  // namespace laptopdiff::runtime
