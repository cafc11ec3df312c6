// The page's style sheet.
#pragma once

namespace laptopdiff::report {

extern const char* const kStyle;

}  // namespace laptopdiff::report
