#include "runtime/config.h"

namespace laptopdiff::runtime {

void apply_setting(Json& document, const std::string& setting) {
  const std::size_t equals = setting.find('=');
  if (equals == std::string::npos || equals == 0) {
    throw usage_error("--set ", setting, ": expected a.b=value, for example --set train.steps=100");
  }
  const std::string path = setting.substr(0, equals), text = setting.substr(equals + 1);
  Json* slot = &document;
  std::size_t begin = 0;
  while (begin <= path.size()) {
    const std::size_t dot = std::min(path.find('.', begin), path.size());
    if (slot->is_null()) *slot = Json::object();
    if (!slot->is_object()) throw usage_error("--set ", setting, ": `", path.substr(0, begin), "` is not an object");
    slot = &(*slot)[path.substr(begin, dot - begin)];
    begin = dot + 1;
  }
  Json value = Json::parse(text, nullptr, /*allow_exceptions=*/false);
  *slot = value.is_discarded() ? Json(text) : value;
}

}  // namespace laptopdiff::runtime
