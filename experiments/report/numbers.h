// Numbers as a reader wants them.
#pragma once

#include <cstdint>
#include <string>

namespace laptopdiff::report {

std::string significant(double value, int digits = 4);  // "0.2713", "1.2×10⁻⁵", "−3.1"
std::string percent(double value, int decimals = 1);    // "52.1 %", of a value in percent
std::string short_count(std::int64_t count);            // "3.21 M", "812"
std::string duration(double seconds);                   // "2 h 05 min", "3 min 20 s", "4.1 s"
std::string power_of_ten(int exponent);                 // "1", "10⁻⁵"

}  // namespace laptopdiff::report
