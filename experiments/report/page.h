// The whole page: one HTML document with nothing outside it, and no scripts.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "runtime/json.h"

namespace laptopdiff::report {

// Reads the sweep in `folder` and lays it out, with the curve files of `solve --curve` among its curves. `made_by` is
// the report's own provenance ("command", "version", "commit"; missing keys are passed over). Throws Error(bad_input),
// naming the file that is broken.
std::string make_page(const std::filesystem::path& folder, const runtime::Json& made_by,
                      const std::vector<std::filesystem::path>& curves = {});

// The same of curve files alone; at least one.
std::string make_curves_page(const std::vector<std::filesystem::path>& curves, const runtime::Json& made_by);

}  // namespace laptopdiff::report
