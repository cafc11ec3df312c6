// Which settings of the verbs name files and folders that are read, and that no output takes their place.
#pragma once

#include <filesystem>
#include <set>
#include <string>
#include <vector>

#include "runtime/json.h"

namespace laptopdiff::experiments {

// The settings whose value is the name of a file or folder, or a list of them.
const std::set<std::string>& input_settings();

// One file, whatever its name, or several with commas between them.
std::vector<std::string> split_files(const std::string& text);

// Of what an output will hold.
enum class Holds { results, copies };

// Throws Error(usage) where an output would replace what `settings` have read: it is one of their inputs, holds one, or
// lies in one that is a folder and is there already, or will hold a copy of that folder.
void check_apart(const std::filesystem::path& output, const runtime::Json& settings, Holds holds = Holds::results);

}  // namespace laptopdiff::experiments
