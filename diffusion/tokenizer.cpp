#include "diffusion/tokenizer.h"

#include <algorithm>

#include "diffusion/byte_pairs.h"
#include "diffusion/unicode.h"
#include "runtime/error.h"
#include "runtime/file.h"
#include "runtime/json.h"

namespace laptopdiff::diffusion {
namespace fs = std::filesystem;
using runtime::input_error;
using runtime::Json;

namespace {

constexpr std::int64_t kClipLength = 77;
constexpr std::int64_t kLongestLength = 1 << 20;  // saved tokenizers write 1e30 for "no limit"

// A token that is taken out of the text as a whole: before the clean-up, or after it where `normalized`.
struct AddedToken {
  std::string content;
  std::int64_t id = 0;
  bool normalized = false;
};

// What the files of a folder say, before it is made into tables.
struct Files {
  Vocabulary vocabulary;
  Merges merges;
  std::vector<AddedToken> added;
  std::string unknown = "<|endoftext|>", start = "<|startoftext|>", end = "<|endoftext|>", pad = "<|endoftext|>";
  std::int64_t max_length = kClipLength;
  std::string where;
};

std::int64_t token_id(const Json& value, const std::string& where) {
  const auto id = runtime::ObjectReader::convert<std::int64_t>(value, where);
  if (id < 0 || id > (std::int64_t{1} << 31)) throw input_error(where, ": ", id, " is not a token id");
  return id;
}

Vocabulary read_vocabulary(const Json& json, const std::string& where) {
  if (!json.is_object() || json.empty()) throw input_error(where, ": expected an object of token -> id");
  Vocabulary vocabulary;
  for (const auto& [token, id] : json.items()) vocabulary[token] = token_id(id, where + ": `" + token + "`");
  return vocabulary;
}

std::pair<std::string, std::string> split_merge(const std::string& line, const std::string& where) {
  const auto space = line.find(' ');
  if (space == std::string::npos || space == 0 || space + 1 == line.size() ||
      line.find(' ', space + 1) != std::string::npos) {
    throw input_error(where, ": expected two tokens with a space between, got `", line, "`");
  }
  return {line.substr(0, space), line.substr(space + 1)};
}

Merges read_merges_file(const fs::path& path) {
  const std::string text = runtime::read_file(path);
  Merges merges;
  std::size_t number = 0;
  for (std::size_t begin = 0; begin < text.size();) {
    const std::size_t end = std::min(text.find('\n', begin), text.size());
    std::string line = text.substr(begin, end - begin);
    begin = end + 1;
    ++number;
    if (!line.empty() && line.back() == '\r') line.pop_back();
    if (line.empty() || line.rfind("#version", 0) == 0) continue;
    merges.push_back(split_merge(line, runtime::cat(path.string(), ":", number)));
  }
  return merges;
}

Merges read_merges_json(const Json& json, const std::string& where) {
  if (!json.is_array()) throw input_error(where, ": expected a list");
  Merges merges;
  for (std::size_t i = 0; i < json.size(); ++i) {
    const Json& entry = json[i];
    const std::string here = runtime::cat(where, "[", i, "]");
    if (entry.is_string()) merges.push_back(split_merge(entry.get<std::string>(), here));
    else if (entry.is_array() && entry.size() == 2 && entry[0].is_string() && entry[1].is_string())
      merges.emplace_back(entry[0].get<std::string>(), entry[1].get<std::string>());
    else throw input_error(here, ": expected \"a b\" or [\"a\", \"b\"], got ", entry.dump());
  }
  return merges;
}

// `json[key]`, or `fallback` where it is absent or null; a value that is not true or false is refused.
bool flag(const Json& json, const char* key, bool fallback, const std::string& where) {
  if (!json.is_object() || !json.contains(key) || json[key].is_null()) return fallback;
  return runtime::ObjectReader::convert<bool>(json[key], where + ": `" + key + "`");
}

// The text `json[key]`, or "" where it is absent or something else.
std::string text_of(const Json& json, const char* key) {
  return json.is_object() && json.contains(key) && json[key].is_string() ? json[key].get<std::string>() : "";
}

// The first token of a content stands: files that name one token twice differ only in flags.
void add_token(Files& files, AddedToken token) {
  const auto same = [&](const AddedToken& other) { return other.content == token.content; };
  if (token.content.empty() || std::any_of(files.added.begin(), files.added.end(), same)) return;
  files.added.push_back(std::move(token));
}

void read_added_token(Files& files, const Json& json, std::int64_t id, const std::string& where) {
  if (!json.is_object() || !json.contains("content") || !json["content"].is_string()) {
    throw input_error(where, ": expected an object with a `content` text");
  }
  for (const char* rule : {"lstrip", "rstrip", "single_word"}) {
    if (flag(json, rule, false, where)) throw input_error(where, ": `", rule, "` is not supported for added tokens");
  }
  const auto content = json["content"].get<std::string>();
  files.vocabulary.emplace(content, id);
  add_token(files, {content, id, flag(json, "normalized", !flag(json, "special", false, where), where)});
}

void read_tokenizer_json(Files& files, const fs::path& path) {
  const Json json = runtime::read_json(path);
  const std::string where = path.string();
  const Json model = json.is_object() && json.contains("model") ? json["model"] : Json();
  if (text_of(model, "type") != "BPE" || !model.contains("vocab")) {
    throw input_error(where, ": expected a byte-pair model (`model.type` \"BPE\" with `vocab` and `merges`)");
  }
  if (text_of(model, "end_of_word_suffix") != "</w>") {
    throw input_error(where, ": expected CLIP's `end_of_word_suffix` \"</w>\"; only CLIP tokenizers are supported");
  }
  files.vocabulary = read_vocabulary(model["vocab"], where + ": `model.vocab`");
  files.merges = read_merges_json(model.contains("merges") ? model["merges"] : Json(), where + ": `model.merges`");
  if (model.contains("unk_token") && model["unk_token"].is_string()) files.unknown = model["unk_token"];
  if (!json.contains("added_tokens")) return;
  for (const Json& token : json["added_tokens"]) {
    const std::string here = where + ": `added_tokens`";
    if (!token.is_object() || !token.contains("id")) throw input_error(here, ": a token has no `id`");
    read_added_token(files, token, token_id(token["id"], here), here);
  }
}

// "pad_token": "x" or {"content": "x", ...}
void read_token_name(const Json& config, const char* key, std::string& name, const std::string& where) {
  if (!config.contains(key) || config[key].is_null()) return;
  const Json& value = config[key];
  if (value.is_string()) name = value.get<std::string>();
  else if (value.is_object() && value.contains("content") && value["content"].is_string()) name = value["content"];
  else throw input_error(where, ": `", key, "`: expected a text or an object with a `content`");
}

void read_token_names(Files& files, const Json& config, const std::string& where) {
  if (!config.is_object()) throw input_error(where, ": expected an object");
  read_token_name(config, "unk_token", files.unknown, where);
  read_token_name(config, "bos_token", files.start, where);
  read_token_name(config, "eos_token", files.end, where);
  read_token_name(config, "pad_token", files.pad, where);
}

// Whether the special token `key` is looked for after the clean-up, as its object says.
bool is_normalized(const Json& config, const char* key, const std::string& where) {
  return config.contains(key) && flag(config[key], "normalized", false, where);
}

// Where two of them are one token, as end and pad often are, the later name's flags count in transformers: hence the
// backward order.
void add_special_tokens(Files& files, const Json& names) {
  const std::pair<const char*, const std::string*> specials[] = {
      {"pad_token", &files.pad}, {"unk_token", &files.unknown}, {"eos_token", &files.end}, {"bos_token", &files.start}};
  for (const auto& [key, name] : specials) {
    const auto found = files.vocabulary.find(*name);
    if (found == files.vocabulary.end()) {
      throw input_error(files.where, ": the vocabulary has no `", *name, "`, which is the `", key, "`");
    }
    add_token(files, {*name, found->second, is_normalized(names, key, files.where)});
  }
}

void read_max_length(Files& files, const Json& config, const std::string& where) {
  if (!config.contains("model_max_length") || config["model_max_length"].is_null()) return;
  const Json& value = config["model_max_length"];
  if (!value.is_number() || value.get<double>() < 2) {
    throw input_error(where, ": `model_max_length`: expected a number of at least 2, got ", value.dump());
  }
  if (value.get<double>() <= kLongestLength) files.max_length = value.get<std::int64_t>();
}

Json read_optional(const fs::path& path) { return fs::exists(path) ? runtime::read_json(path) : Json::object(); }

// Newer files list every added token in tokenizer_config.json; older ones spread them over two more files, and there
// special_tokens_map.json has the last word (SD 2's pad token `!` stands only there).
void read_settings(Files& files, const fs::path& folder) {
  Json names = read_optional(folder / "tokenizer_config.json");
  const std::string where = (folder / "tokenizer_config.json").string();
  if (!names.is_object()) throw input_error(where, ": expected an object");
  read_max_length(files, names, where);
  if (names.contains("added_tokens_decoder")) {
    for (const auto& [id, token] : names["added_tokens_decoder"].items()) {
      const std::string here = where + ": `added_tokens_decoder`: `" + id + "`";
      if (id.empty() || id.find_first_not_of("0123456789") != std::string::npos || id.size() > 9) {
        throw input_error(here, ": expected a token id");
      }
      read_added_token(files, token, std::stoll(id), here);
    }
  } else {
    const Json map = read_optional(folder / "special_tokens_map.json");
    if (map.is_object()) names.update(map);
    const Json added = read_optional(folder / "added_tokens.json");
    for (const auto& [token, id] : added.items()) {
      const std::int64_t number = token_id(id, (folder / "added_tokens.json").string() + ": `" + token + "`");
      files.vocabulary.emplace(token, number);
      if (token != files.start && token != files.end) add_token(files, {token, number, true});
    }
  }
  read_token_names(files, names, where);
  add_special_tokens(files, names);
}

Files read_files(const fs::path& folder) {
  Files files;
  files.where = folder.string();
  const bool has_pair = fs::exists(folder / "vocab.json") && fs::exists(folder / "merges.txt");
  if (fs::exists(folder / "tokenizer.json")) {
    read_tokenizer_json(files, folder / "tokenizer.json");
  } else if (has_pair) {
    files.vocabulary = read_vocabulary(runtime::read_json(folder / "vocab.json"), (folder / "vocab.json").string());
    files.merges = read_merges_file(folder / "merges.txt");
  } else {
    throw input_error(folder.string(), ": no tokenizer here; expected tokenizer.json, or vocab.json with merges.txt");
  }
  read_settings(files, folder);
  return files;
}

}  // namespace

struct Tokenizer::Tables {
  Vocabulary vocabulary;
  BytePairs pairs;
  std::vector<AddedToken> raw, normalized;  // longest first
  std::int64_t start = 0, end = 0, pad = 0, max_length = kClipLength, size = 0;

  explicit Tables(Files files);
  void append_text(std::string_view text, std::vector<std::int64_t>& out) const;
  void append_words(std::string_view text, std::vector<std::int64_t>& out) const;
};

namespace {

std::vector<AddedToken> longest_first(std::vector<AddedToken> tokens) {
  const auto longer = [](const AddedToken& a, const AddedToken& b) { return a.content.size() > b.content.size(); };
  std::stable_sort(tokens.begin(), tokens.end(), longer);
  return tokens;
}

// Splits `text` at the added tokens, leftmost and then longest first: `between` gets what lies between them.
template <typename Between>
void split_at(std::string_view text, const std::vector<AddedToken>& tokens, std::vector<std::int64_t>& out,
              const Between& between) {
  std::size_t begin = 0, i = 0;
  while (i < text.size()) {
    const auto starts_here = [&](const AddedToken& t) { return text.substr(i, t.content.size()) == t.content; };
    const auto found = std::find_if(tokens.begin(), tokens.end(), starts_here);
    if (found == tokens.end()) {
      ++i;
      continue;
    }
    if (i > begin) between(text.substr(begin, i - begin));
    out.push_back(found->id);
    begin = i += found->content.size();
  }
  if (begin < text.size()) between(text.substr(begin));
}

// The length of the English ending at the start of `text`, or 0.
std::size_t contraction_length(std::string_view text) {
  for (const std::string_view ending : {"'s", "'t", "'re", "'ve", "'m", "'ll", "'d"}) {
    if (text.substr(0, ending.size()) == ending) return ending.size();
  }
  return 0;
}

// A special token that is spelled out in the cleaned text (typed in upper case, say) is not special, but three words.
std::vector<std::string_view> spelled_special_token(std::string_view text) {
  for (const std::string_view name : {"startoftext", "endoftext"}) {
    const std::size_t length = name.size() + 4;
    if (text.size() >= length && text.substr(0, 2) == "<|" && text.substr(2, name.size()) == name &&
        text.substr(2 + name.size(), 2) == "|>") {
      return {text.substr(0, 2), text.substr(2, name.size()), text.substr(2 + name.size(), 2)};
    }
  }
  return {};
}

std::size_t run_length(std::string_view text, CharClass kind) {
  std::size_t end = 0;
  while (end < text.size()) {
    const Character c = character_at(text, end);
    if (c.kind != kind) break;
    end += c.length;
  }
  return end;
}

}  // namespace

Tokenizer::Tables::Tables(Files files)
    : vocabulary(std::move(files.vocabulary)),
      pairs(vocabulary, files.merges, vocabulary.at(files.unknown), files.where),
      start(vocabulary.at(files.start)),
      end(vocabulary.at(files.end)),
      pad(vocabulary.at(files.pad)),
      max_length(files.max_length) {
  for (auto& token : files.added) {
    if (token.normalized) token.content = clean_text(token.content);
    (token.normalized ? normalized : raw).push_back(token);
  }
  raw = longest_first(std::move(raw));
  normalized = longest_first(std::move(normalized));
  for (const auto& [token, id] : vocabulary) size = std::max(size, id + 1);
}

void Tokenizer::Tables::append_text(std::string_view text, std::vector<std::int64_t>& out) const {
  split_at(text, raw, out, [&](std::string_view piece) {
    const std::string clean = clean_text(piece);
    split_at(clean, normalized, out, [&](std::string_view words) { append_words(words, out); });
  });
}

void Tokenizer::Tables::append_words(std::string_view text, std::vector<std::int64_t>& out) const {
  while (!text.empty()) {
    const Character first = character_at(text, 0);
    std::size_t length = first.length;
    if (first.kind == CharClass::other) {
      const auto special = spelled_special_token(text);
      for (const auto part : special) {
        pairs.append_ids(part, out);
        text.remove_prefix(part.size());
      }
      if (!special.empty()) continue;
      length = contraction_length(text);
      if (length == 0) length = run_length(text, CharClass::other);
    } else if (first.kind == CharClass::letter) {
      length = run_length(text, CharClass::letter);
    }
    if (first.kind != CharClass::space) pairs.append_ids(text.substr(0, length), out);
    text.remove_prefix(length);
  }
}

Tokenizer Tokenizer::load(const fs::path& folder) {
  return Tokenizer(std::make_shared<const Tables>(read_files(folder)));
}

std::vector<std::int64_t> Tokenizer::ids(std::string_view text) const {
  std::vector<std::int64_t> out;
  tables_->append_text(text, out);
  return out;
}

std::vector<std::int64_t> Tokenizer::encode(std::string_view text, std::optional<std::int64_t> pad) const {
  const auto room = static_cast<std::size_t>(tables_->max_length - 2);
  std::vector<std::int64_t> out = ids(text);
  if (out.size() > room) out.resize(room);
  out.insert(out.begin(), tables_->start);
  out.push_back(tables_->end);
  out.resize(static_cast<std::size_t>(tables_->max_length), pad.value_or(tables_->pad));
  return out;
}

std::int64_t Tokenizer::start_id() const { return tables_->start; }
std::int64_t Tokenizer::end_id() const { return tables_->end; }
std::int64_t Tokenizer::pad_id() const { return tables_->pad; }
std::int64_t Tokenizer::max_length() const { return tables_->max_length; }
std::int64_t Tokenizer::vocabulary_size() const { return tables_->size; }

std::optional<std::int64_t> Tokenizer::id_of(std::string_view token) const {
  const auto found = tables_->vocabulary.find(std::string(token));
  if (found == tables_->vocabulary.end()) return std::nullopt;
  return found->second;
}

}  // namespace laptopdiff::diffusion
