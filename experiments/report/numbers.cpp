#include "experiments/report/numbers.h"

#include <cmath>
#include <cstdio>
#include <cstdlib>

#include "runtime/error.h"

namespace laptopdiff::report {
namespace {

constexpr const char* kMinus = "\u2212";

std::string formatted(const char* format, int digits, double value) {
  char text[64];
  std::snprintf(text, sizeof text, format, digits, value);
  return text;
}

std::string with_minus(const std::string& text) {
  return !text.empty() && text[0] == '-' ? kMinus + text.substr(1) : text;
}

std::string superscript(int exponent) {
  static constexpr const char* kDigits[] = {"\u2070", "\u00B9", "\u00B2", "\u00B3", "\u2074",
                                            "\u2075", "\u2076", "\u2077", "\u2078", "\u2079"};
  std::string out;
  for (const char c : std::to_string(exponent)) out += c == '-' ? "\u207B" : kDigits[c - '0'];
  return out;
}

}  // namespace

std::string significant(double value, int digits) {
  if (!std::isfinite(value)) return std::isnan(value) ? "not a number" : "infinite";
  const std::string text = formatted("%.*g", digits, value);
  const std::size_t e = text.find('e');
  if (e == std::string::npos) return with_minus(text);
  return with_minus(text.substr(0, e)) + "\u00D710" + superscript(std::atoi(text.c_str() + e + 1));
}

std::string percent(double value, int decimals) {
  const std::string text = formatted("%.*f", decimals, value);
  const bool zero = text.find_first_not_of("-0.") == std::string::npos;
  return with_minus(zero && text[0] == '-' ? text.substr(1) : text) + "\u00A0%";
}

std::string short_count(std::int64_t count) {
  static constexpr const char* kUnits[] = {"", "\u00A0k", "\u00A0M", "\u00A0G", "\u00A0T"};
  double value = static_cast<double>(count);
  int unit = 0;
  while (std::abs(value) >= 999.5 && unit < 4) {
    value /= 1000;
    ++unit;
  }
  const int decimals = unit == 0 || std::abs(value) >= 99.95 ? 0 : std::abs(value) >= 9.995 ? 1 : 2;
  return with_minus(formatted("%.*f", decimals, value)) + kUnits[unit];
}

std::string duration(double seconds) {
  if (seconds < 10) return formatted("%.*f", 1, seconds) + "\u00A0s";
  const auto whole = static_cast<long long>(std::llround(seconds));
  if (whole < 60) return std::to_string(whole) + "\u00A0s";
  char text[64];
  if (whole < 3600) std::snprintf(text, sizeof text, "%lld\u00A0min %02lld\u00A0s", whole / 60, whole % 60);
  else std::snprintf(text, sizeof text, "%lld\u00A0h %02lld\u00A0min", whole / 3600, whole / 60 % 60);
  return text;
}

std::string power_of_ten(int exponent) {
  return exponent == 0 ? "1" : exponent == 1 ? "10" : "10" + superscript(exponent);
}

}  // namespace laptopdiff::report
