// Configs whose fields are listed once.
//
// A config struct has defaults and one function that names each field, and from that list come the JSON reader (with
// unknown-key errors), the JSON writer, `--set a.b=c`, and the help text:
//
//   struct TrainConfig {
//     std::int64_t steps = 1000;
//     template <typename V> void fields(V& v) { v("steps", steps, "number of updates"); }
//   };
//   auto config = read_config<TrainConfig>(json, "distill.json");
#pragma once

#include <string>
#include <type_traits>
#include <vector>

#include "runtime/error.h"
#include "runtime/json.h"

namespace laptopdiff::runtime {

template <typename T>
struct FieldProbe {
  template <typename U>
  void operator()(const char*, U&, const char*) {}
};
template <typename T>
concept HasFields = requires(T& t, FieldProbe<T>& v) {
  t.fields(v);
};

template <HasFields T>
T read_config(const Json& json, const std::string& where);

class ConfigReader {
 public:
  ConfigReader(const Json& json, const std::string& where) : in_(json, where) {}
  template <typename T>
  void operator()(const char* name, T& value, const char*) {
    if constexpr (HasFields<T>) {
      if (in_.has(name)) value = read_config<T>(in_.raw(name), in_.where() + ": `" + name + "`");
      else in_.ignore(name);
    } else if constexpr (std::is_same_v<T, Json>) {
      if (in_.has(name)) value = in_.raw(name);
      else in_.ignore(name);
    } else {
      value = in_.get<T>(name, value);
    }
  }
  void finish() const { in_.finish(); }

 private:
  ObjectReader in_;
};

class ConfigWriter {
 public:
  template <typename T>
  void operator()(const char* name, T& value, const char*) {
    if constexpr (HasFields<T>) {
      ConfigWriter inner;
      value.fields(inner);
      json_[name] = inner.json_;
    } else {
      json_[name] = value;
    }
  }
  Json take() { return std::move(json_); }

 private:
  Json json_ = Json::object();
};

class ConfigHelp {
 public:
  explicit ConfigHelp(std::string indent = "  ") : indent_(std::move(indent)) {}
  template <typename T>
  void operator()(const char* name, T& value, const char* help) {
    if constexpr (HasFields<T>) {
      text_ += cat(indent_, name, ": ", help, "\n");
      ConfigHelp inner(indent_ + "  ");
      value.fields(inner);
      text_ += inner.text_;
    } else {
      text_ += cat(indent_, name, ": ", help, " (default ", Json(value).dump(), ")\n");
    }
  }
  const std::string& text() const { return text_; }

 private:
  std::string indent_, text_;
};

template <HasFields T>
T read_config(const Json& json, const std::string& where) {
  T config;
  ConfigReader reader(json, where);
  config.fields(reader);
  reader.finish();
  return config;
}

template <HasFields T>
Json write_config(T config) {
  ConfigWriter writer;
  config.fields(writer);
  return writer.take();
}

template <HasFields T>
std::string config_help() {
  T config;
  ConfigHelp help;
  config.fields(help);
  return help.text();
}

// Applies "a.b=c" to a JSON document: c is parsed as JSON, or taken as a string where it is not JSON.
// Throws Error(usage) where there is no `=` or a part of the path is not an object.
void apply_setting(Json& document, const std::string& setting);

}  // namespace laptopdiff::runtime
