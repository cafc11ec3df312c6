// Progress of long work on stderr: stage, count, rate and time left.
//
// On a terminal one line is redrawn; elsewhere a plain line appears every few seconds, so logs stay readable.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>

namespace laptopdiff::runtime {

enum class Verbosity { quiet, normal };
void set_verbosity(Verbosity verbosity);
Verbosity verbosity();

// One message line on stderr, unless quiet.
void say(const std::string& line);
// A warning is printed even when quiet: it changes what a result means.
void warn(const std::string& line);

class Progress {
 public:
  // `total` 0 means unknown. `unit` is what is counted: "samples", "steps".
  Progress(std::string stage, std::int64_t total, std::string unit, std::int64_t already_done = 0);
  ~Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  // `note` is shown behind the count, e.g. "loss 0.0431".
  void update(std::int64_t done, const std::string& note = "");
  // Prints the last line with the total time.
  void finish(const std::string& note = "");

 private:
  void draw(const std::string& line, bool last);

  std::string stage_, unit_;
  std::int64_t total_, start_, done_;
  std::chrono::steady_clock::time_point began_, drawn_;
  bool open_ = true;
};

// "1 h 02 min", "3 min 05 s", "4.2 s"
std::string duration_text(double seconds);
// "859,520,964"
std::string with_commas(std::int64_t number);
// "49.18 %".
std::string percent(std::int64_t part, std::int64_t whole);

}  // namespace laptopdiff::runtime
