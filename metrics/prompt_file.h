// The text files beside a folder of pictures: prompts and labels, line i for picture i. Knows no torch.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

namespace laptopdiff::metrics {

// One prompt a line; an empty line is the empty prompt, a newline at the end of the file adds none. A file named
// *.jsonl has a JSON object a line, with the prompt under `text`; other keys are left alone. Throws Error(bad_input)
// for a missing file, no lines, or a row without `text`, naming the line.
std::vector<std::string> read_prompts(const std::filesystem::path& path);

// Likewise a class name or number a line, or under `label` (a string or an integer) in *.jsonl.
std::vector<std::string> read_labels(const std::filesystem::path& path);

}  // namespace laptopdiff::metrics
