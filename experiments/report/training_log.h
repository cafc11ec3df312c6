// A training run's log.jsonl: one row a logged step.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

namespace laptopdiff::report {

// The feature loss of one tap.
struct TapLoss {
  double raw = 0, balanced = 0;
};

struct LogRow {
  std::int64_t step = 0;
  double loss = 0, task = 0, output = 0, feature = 0;  // the weighted parts, and their sum
  std::map<std::string, TapLoss> taps;                 // by the teacher's module
};

using TrainingLog = std::vector<LogRow>;

// Lines that are no JSON are passed over: a killed run may leave half a line. Throws Error(bad_input) where a whole
// line lacks a number.
TrainingLog read_training_log(const std::filesystem::path& path);

// Tap names of a log in the order a picture passes them: conv_in, down, mid, up.
std::vector<std::string> taps_in_order(const TrainingLog& log);

// How uneven the terms of one row are: the largest and smallest share of their sum.
struct Shares {
  std::string largest_tap, smallest_tap;
  double largest = 0, smallest = 0;
  double ratio() const { return smallest > 0 ? largest / smallest : 0; }
};
enum class Term { raw, balanced };
double term(const TapLoss& loss, Term which);
Shares shares(const LogRow& row, Term which);

}  // namespace laptopdiff::report
