#include "runtime/progress.h"

#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "runtime/error.h"

namespace laptopdiff::runtime {
namespace {

using Clock = std::chrono::steady_clock;
Verbosity g_verbosity = Verbosity::normal;  // set once by main, before any work starts

bool is_terminal() {
  static const bool terminal = ::isatty(STDERR_FILENO) == 1;
  return terminal;
}

double seconds_since(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

}  // namespace

void set_verbosity(Verbosity verbosity) { g_verbosity = verbosity; }
Verbosity verbosity() { return g_verbosity; }

void say(const std::string& line) {
  if (g_verbosity == Verbosity::normal) std::fprintf(stderr, "%s\n", line.c_str());
}

void warn(const std::string& line) { std::fprintf(stderr, "warning: %s\n", line.c_str()); }

Progress::Progress(std::string stage, std::int64_t total, std::string unit, std::int64_t already_done)
    : stage_(std::move(stage)),
      unit_(std::move(unit)),
      total_(total),
      start_(already_done),
      done_(already_done),
      began_(Clock::now()),
      drawn_(Clock::now()) {}

Progress::~Progress() {
  if (open_ && is_terminal() && g_verbosity == Verbosity::normal) std::fputc('\n', stderr);
}

void Progress::update(std::int64_t done, const std::string& note) {
  done_ = done;
  const double interval = is_terminal() ? 0.1 : 5.0;
  if (g_verbosity == Verbosity::quiet || seconds_since(drawn_) < interval) return;
  const double elapsed = seconds_since(began_);
  const double rate = elapsed > 0 ? static_cast<double>(done_ - start_) / elapsed : 0;
  char rate_text[32];
  std::snprintf(rate_text, sizeof rate_text, "%.3g", rate);
  std::string line = cat(stage_, ": ", with_commas(done_));
  if (total_ > 0) line += cat("/", with_commas(total_));
  line += cat(" ", unit_, ", ", rate_text, "/s");
  if (total_ > 0 && rate > 0) line += cat(", ", duration_text(static_cast<double>(total_ - done_) / rate), " left");
  if (!note.empty()) line += ", " + note;
  draw(line, false);
}

void Progress::finish(const std::string& note) {
  open_ = false;
  if (g_verbosity == Verbosity::quiet) return;
  std::string line = cat(stage_, ": ", with_commas(total_ > 0 ? total_ : done_), " ", unit_, " in ",
                         duration_text(seconds_since(began_)));
  if (!note.empty()) line += ", " + note;
  draw(line, true);
}

void Progress::draw(const std::string& line, bool last) {
  drawn_ = Clock::now();
  if (is_terminal()) {
    std::fprintf(stderr, "\r\x1b[K%s%s", line.c_str(), last ? "\n" : "");
    std::fflush(stderr);
  } else {
    std::fprintf(stderr, "%s\n", line.c_str());
  }
}

std::string duration_text(double seconds) {
  char text[48];
  if (!std::isfinite(seconds)) return "unknown";
  const double tenths = std::round(std::max(0.0, seconds) * 10) / 10;  // 59.97 is a minute, not 60.0 s
  const auto whole = static_cast<long long>(tenths);
  if (whole >= 3600) {
    std::snprintf(text, sizeof text, "%lld h %02lld min", whole / 3600, whole % 3600 / 60);
  } else if (whole >= 60) {
    std::snprintf(text, sizeof text, "%lld min %02lld s", whole / 60, whole % 60);
  } else {
    std::snprintf(text, sizeof text, "%.1f s", tenths);
  }
  return text;
}

std::string percent(std::int64_t part, std::int64_t whole) {
  char text[32];
  std::snprintf(text, sizeof text, "%.2f %%", 100.0 * static_cast<double>(part) / static_cast<double>(whole));
  return text;
}

std::string with_commas(std::int64_t number) {
  std::string digits = std::to_string(number);
  const std::size_t first = number < 0 ? 1 : 0;
  for (std::size_t i = digits.size(); i > first + 3; i -= 3) digits.insert(i - 3, ",");
  return digits;
}

}  // namespace laptopdiff::runtime
