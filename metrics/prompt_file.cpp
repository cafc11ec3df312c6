#include "metrics/prompt_file.h"

#include "runtime/error.h"
#include "runtime/file.h"
#include "runtime/json.h"

namespace laptopdiff::metrics {
namespace {

using namespace runtime;
namespace fs = std::filesystem;

std::vector<std::string> lines_of(const fs::path& path) {
  const std::string text = read_file(path);
  std::vector<std::string> lines;
  for (std::size_t from = 0; from < text.size();) {
    const std::size_t newline = std::min(text.find('\n', from), text.size());
    lines.push_back(text.substr(from, newline - from));
    if (!lines.back().empty() && lines.back().back() == '\r') lines.back().pop_back();
    from = newline + 1;
  }
  if (lines.empty()) throw input_error(path.string(), ": the file is empty; expected a line a picture");
  return lines;
}

std::string field(const std::string& line, const std::string& key, const std::string& where) {
  const Json row = parse_json(line, where);
  if (!row.is_object() || !row.contains(key)) throw input_error(where, ": expected an object with `", key, "`");
  const Json& value = row.at(key);
  if (value.is_string()) return value.get<std::string>();
  if (value.is_number_integer() && key == "label") return value.dump();
  throw input_error(where, ": `", key, "` is ", value.dump().substr(0, 60), ", expected a string",
                    key == "label" ? " or an integer" : "");
}

std::vector<std::string> read_column(const fs::path& path, const std::string& key) {
  std::vector<std::string> lines = lines_of(path);
  if (path.extension() != ".jsonl") return lines;
  for (std::size_t i = 0; i < lines.size(); ++i) lines[i] = field(lines[i], key, cat(path.string(), " line ", i + 1));
  return lines;
}

}  // namespace

std::vector<std::string> read_prompts(const fs::path& path) { return read_column(path, "text"); }
std::vector<std::string> read_labels(const fs::path& path) { return read_column(path, "label"); }

}  // namespace laptopdiff::metrics
