#include "runtime/config.h"

#include <algorithm>

namespace laptopdiff::runtime {
namespace {

// What is not JSON is text; what is JSON obeys the rules for files (no duplicate keys, bounded depth).
Json setting_value(const std::string& text) {
  if (!Json::accept(text)) return text;
  try {
    return parse_json(text, "--set");
  } catch (const Error& error) {
    throw usage_error(error.what());
  }
}

}  // namespace

void apply_setting(Json& document, const std::string& setting) {
  const std::size_t equals = setting.find('=');
  if (equals == std::string::npos || equals == 0) {
    throw usage_error("--set ", setting, ": expected a.b=value, for example --set train.steps=100");
  }
  const std::string path = setting.substr(0, equals), text = setting.substr(equals + 1);
  if (std::count(path.begin(), path.end(), '.') >= kMaxJsonDepth) {
    throw usage_error("--set ", path.substr(0, 60), "...: nested deeper than ", kMaxJsonDepth, " levels");
  }
  Json* slot = &document;
  std::size_t begin = 0;
  while (begin <= path.size()) {
    const std::size_t dot = std::min(path.find('.', begin), path.size());
    if (dot == begin) throw usage_error("--set ", setting, ": a name in `", path, "` is empty");
    if (slot->is_null()) *slot = Json::object();
    if (!slot->is_object()) {
      const std::string parent = begin == 0 ? "the document" : "`" + path.substr(0, begin - 1) + "`";
      throw usage_error("--set ", setting, ": ", parent, " is not an object");
    }
    slot = &(*slot)[path.substr(begin, dot - begin)];
    begin = dot + 1;
  }
  *slot = setting_value(text);
}

}  // namespace laptopdiff::runtime
