// The one JSON reader and writer of the project.
//
// The reader refuses what nlohmann_json lets through: duplicate keys (it keeps the last), nesting deeper than
// kMaxJsonDepth (copying it overflows the stack), trailing bytes, files over kMaxJsonBytes, and more than
// kMaxJsonValues values (each takes up to a hundred times the two bytes that it is written with). The writer sorts
// keys, indents by two spaces, ends with a newline, and refuses NaN and Inf (nlohmann writes them as null).
#pragma once

#include <cstdint>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

namespace laptopdiff::runtime {

using Json = nlohmann::json;

inline constexpr int kMaxJsonDepth = 128;
inline constexpr std::uint64_t kMaxJsonBytes = 512ull << 20;
inline constexpr std::size_t kMaxJsonValues = std::size_t{1} << 22;

// Parses `text`; `where` names it in errors. Throws Error(bad_input).
Json parse_json(std::string_view text, const std::string& where);

// Reads and parses a file. Throws Error(bad_input).
Json read_json(const std::filesystem::path& path);

// Sorted keys, two spaces, last newline. Throws Error(non_finite) naming the first key that is NaN or Inf.
std::string dump_json(const Json& value);

// Atomic: the file appears whole or not at all. Throws Error(resources).
void write_json(const std::filesystem::path& path, const Json& value);

// Reads the fields of one JSON object, each by name and type, and refuses the keys nobody asked for.
//
//   ObjectReader in(json, "spec.json");
//   in.require_format("laptopdiff.example/1");
//   const auto seed = in.get<std::int64_t>("seed", 0);
//   in.finish();  // throws: spec.json: unknown key `sede` (did you mean `seed`?)
class ObjectReader {
 public:
  ObjectReader(const Json& object, std::string where);

  bool has(const std::string& key) const;  // present and not null
  // The raw value, or null where it is absent.
  const Json& raw(const std::string& key);

  template <typename T>
  T required(const std::string& key) {
    if (!has(key)) missing(key);
    return convert<T>(raw(key), where_ + ": `" + key + "`");
  }
  template <typename T>
  T get(const std::string& key, T fallback) {
    return has(key) ? convert<T>(raw(key), where_ + ": `" + key + "`") : (note(key), fallback);
  }

  void ignore(const std::string& key) { note(key); }
  // Keys not yet asked for.
  std::vector<std::string> unread() const;
  // Throws Error(bad_input) for unread keys, naming the near known ones.
  void finish() const;
  // The `format` that our own files begin with. `made_by` may say what writes such a file. Throws Error(bad_input)
  // where it is another.
  void require_format(std::string_view expected, std::string_view made_by = {});

  const std::string& where() const { return where_; }

  // Checked conversion: the type must match, integers must be integral and in range, floats finite.
  template <typename T>
  static T convert(const Json& value, const std::string& where);

 private:
  void note(const std::string& key) { known_.insert(key); }
  [[noreturn]] void missing(const std::string& key) const;

  const Json& object_;
  std::string where_;
  std::set<std::string> known_;
};

}  // namespace laptopdiff::runtime
