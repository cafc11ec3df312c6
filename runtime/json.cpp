#include "runtime/json.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "runtime/error.h"
#include "runtime/file.h"

namespace laptopdiff::runtime {
namespace {

constexpr std::size_t kMostUnknownKeys = 16;  // that are named, with the nearest known ones

// nlohmann repeats the token it stopped at, however long that is: the place is at the front, the reason at the end.
std::string shortened(const std::string& message) {
  constexpr std::size_t kMost = 400;
  if (message.size() <= kMost) return message;
  return message.substr(0, kMost / 2) + " ... " + message.substr(message.size() - kMost / 2);
}

// Builds the document like nlohmann's own DOM builder, with the checks it lacks.
class StrictBuilder : public nlohmann::json_sax<Json> {
 public:
  explicit StrictBuilder(std::string where) : where_(std::move(where)) {}

  Json take() { return std::move(root_); }

  bool null() override { return put(nullptr); }
  bool boolean(bool value) override { return put(value); }
  bool number_integer(number_integer_t value) override { return put(value); }
  bool number_unsigned(number_unsigned_t value) override { return put(value); }
  bool number_float(number_float_t value, const string_t& text) override {
    if (!std::isfinite(value)) throw input_error(where_, ": number ", text.substr(0, 40), " is out of range");
    return put(value);
  }
  bool string(string_t& value) override { return put(std::move(value)); }
  bool binary(binary_t&) override { return false; }
  bool start_object(std::size_t) override { return open(Json::object()); }
  bool start_array(std::size_t) override { return open(Json::array()); }
  bool end_object() override { return close(); }
  bool end_array() override { return close(); }
  bool key(string_t& name) override {
    if (open_.back()->contains(name)) throw input_error(where_, ": duplicate key `", name.substr(0, 80), "`");
    key_ = std::move(name);
    return true;
  }
  bool parse_error(std::size_t position, const std::string&, const nlohmann::detail::exception& error) override {
    throw input_error(where_, ": not valid JSON at byte ", position, ": ", shortened(error.what()));
  }

 private:
  Json* place(Json value) {
    if (++values_ > kMaxJsonValues) throw input_error(where_, ": more than ", kMaxJsonValues, " values");
    if (open_.empty()) {
      root_ = std::move(value);
      return &root_;
    }
    Json& parent = *open_.back();
    if (parent.is_array()) {
      parent.push_back(std::move(value));
      return &parent.back();
    }
    Json& slot = parent[key_];
    slot = std::move(value);
    return &slot;
  }
  bool put(Json value) {
    place(std::move(value));
    return true;
  }
  bool open(Json container) {
    if (open_.size() >= static_cast<std::size_t>(kMaxJsonDepth)) {
      throw input_error(where_, ": nested deeper than ", kMaxJsonDepth, " levels");
    }
    open_.push_back(place(std::move(container)));
    return true;
  }
  bool close() {
    open_.pop_back();
    return true;
  }

  std::string where_;
  std::size_t values_ = 0;
  Json root_;
  std::vector<Json*> open_;
  std::string key_;
};

void check_finite(const Json& value, const std::string& where) {
  if (value.is_number_float() && !std::isfinite(value.get<double>())) {
    throw non_finite_error("cannot write ", where, ": the number is NaN or Inf");
  }
  if (value.is_object()) {
    for (const auto& [key, child] : value.items()) check_finite(child, where.empty() ? key : where + "." + key);
  } else if (value.is_array()) {
    for (std::size_t i = 0; i < value.size(); ++i) check_finite(value[i], cat(where, "[", i, "]"));
  }
}

// A value for a message. A flag's text may not be UTF-8, on which plain dump() throws.
std::string shown(const Json& value, std::size_t most) {
  return value.dump(-1, ' ', false, Json::error_handler_t::replace).substr(0, most);
}

template <typename T>
T checked_integer(const Json& value, const std::string& where) {
  if (value.is_number_unsigned()) {
    const auto number = value.get<std::uint64_t>();
    if (number <= static_cast<std::uint64_t>(std::numeric_limits<T>::max())) return static_cast<T>(number);
  } else if (value.is_number_integer()) {
    const auto number = value.get<std::int64_t>();
    if (number >= static_cast<std::int64_t>(std::numeric_limits<T>::min()) &&
        (number < 0 ||
         static_cast<std::uint64_t>(number) <= static_cast<std::uint64_t>(std::numeric_limits<T>::max()))) {
      return static_cast<T>(number);
    }
  } else {
    throw input_error(where, " must be an integer, is ", shown(value, 60));
  }
  throw input_error(where, ": ", shown(value, 40), " is out of range");
}

template <typename T>
std::vector<T> checked_list(const Json& value, const std::string& where) {
  if (!value.is_array()) throw input_error(where, " must be a list, is ", shown(value, 60));
  std::vector<T> list;
  for (std::size_t i = 0; i < value.size(); ++i)
    list.push_back(ObjectReader::convert<T>(value[i], cat(where, "[", i, "]")));
  return list;
}

}  // namespace

Json parse_json(std::string_view text, const std::string& where) {
  if (text.size() > kMaxJsonBytes) throw input_error(where, ": larger than ", kMaxJsonBytes, " bytes");
  // nlohmann's reader takes a NUL for the end and would not see what follows it.
  const std::size_t nul = text.find('\0');
  if (nul != std::string_view::npos) throw input_error(where, ": not valid JSON at byte ", nul, ": a NUL byte");
  StrictBuilder builder(where);
  if (!Json::sax_parse(text.begin(), text.end(), &builder)) throw input_error(where, ": not valid JSON");
  return builder.take();
}

Json read_json(const std::filesystem::path& path) { return parse_json(read_file(path, kMaxJsonBytes), path.string()); }

std::string dump_json(const Json& value) {
  check_finite(value, "");
  return value.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

void write_json(const std::filesystem::path& path, const Json& value) { write_file(path, dump_json(value)); }

ObjectReader::ObjectReader(const Json& object, std::string where) : object_(object), where_(std::move(where)) {
  if (!object_.is_object()) throw input_error(where_, ": expected an object {...}, got ", shown(object_, 60));
}

bool ObjectReader::has(const std::string& key) const {
  const auto found = object_.find(key);
  return found != object_.end() && !found->is_null();
}

const Json& ObjectReader::raw(const std::string& key) {
  static const Json absent;
  note(key);
  const auto found = object_.find(key);
  return found == object_.end() ? absent : *found;
}

std::vector<std::string> ObjectReader::unread() const {
  std::vector<std::string> keys;
  for (const auto& [key, value] : object_.items()) {
    if (!known_.contains(key)) keys.push_back(key);
  }
  return keys;
}

void ObjectReader::require_format(std::string_view expected, std::string_view made_by) {
  const auto format = required<std::string>("format");
  if (format == expected) return;
  throw input_error(where_, ": `format` is \"", format, "\", expected \"", expected, "\"",
                    made_by.empty() ? "" : cat(", which ", made_by, " writes"));
}

void ObjectReader::finish() const {
  const std::vector<std::string> keys = unread();
  if (keys.empty()) return;
  const std::vector<std::string> candidates(known_.begin(), known_.end());
  std::vector<std::string> complaints;
  for (std::size_t i = 0; i < std::min(keys.size(), kMostUnknownKeys); ++i)
    complaints.push_back(cat("unknown key `", keys[i].substr(0, 80), "`", did_you_mean(keys[i], candidates)));
  if (keys.size() > kMostUnknownKeys) complaints.push_back(cat("and ", keys.size() - kMostUnknownKeys, " more"));
  throw input_error(where_, ": ", join(complaints, "; "));
}

void ObjectReader::missing(const std::string& key) const { throw input_error(where_, ": `", key, "` is missing"); }

template <>
bool ObjectReader::convert<bool>(const Json& value, const std::string& where) {
  if (!value.is_boolean()) throw input_error(where, " must be true or false, is ", shown(value, 60));
  return value.get<bool>();
}
template <>
int ObjectReader::convert<int>(const Json& value, const std::string& where) {
  return checked_integer<int>(value, where);
}
template <>
std::int64_t ObjectReader::convert<std::int64_t>(const Json& value, const std::string& where) {
  return checked_integer<std::int64_t>(value, where);
}
template <>
std::uint64_t ObjectReader::convert<std::uint64_t>(const Json& value, const std::string& where) {
  if (value.is_number_integer() && !value.is_number_unsigned() && value.get<std::int64_t>() < 0) {
    throw input_error(where, " must not be negative, is ", shown(value, 40));
  }
  return checked_integer<std::uint64_t>(value, where);
}
template <>
double ObjectReader::convert<double>(const Json& value, const std::string& where) {
  if (!value.is_number()) throw input_error(where, " must be a number, is ", shown(value, 60));
  const auto number = value.get<double>();
  if (!std::isfinite(number)) throw input_error(where, " must be finite, is ", number);
  return number;
}
template <>
std::string ObjectReader::convert<std::string>(const Json& value, const std::string& where) {
  if (!value.is_string()) throw input_error(where, " must be a string, is ", shown(value, 60));
  return value.get<std::string>();
}
template <>
std::vector<std::string> ObjectReader::convert<std::vector<std::string>>(const Json& value, const std::string& where) {
  return checked_list<std::string>(value, where);
}
template <>
std::vector<int> ObjectReader::convert<std::vector<int>>(const Json& value, const std::string& where) {
  return checked_list<int>(value, where);
}
template <>
std::vector<std::int64_t> ObjectReader::convert<std::vector<std::int64_t>>(const Json& value,
                                                                           const std::string& where) {
  return checked_list<std::int64_t>(value, where);
}
template <>
std::vector<double> ObjectReader::convert<std::vector<double>>(const Json& value, const std::string& where) {
  return checked_list<double>(value, where);
}

}  // namespace laptopdiff::runtime
