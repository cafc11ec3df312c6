#include "diffusion/tokenizer_files.h"

#include <algorithm>

#include "runtime/error.h"
#include "runtime/file.h"
#include "runtime/json.h"

namespace laptopdiff::diffusion {
namespace fs = std::filesystem;
using runtime::input_error;
using runtime::Json;

namespace {

constexpr std::size_t kMaxAddedTokens = 4096;     // each is looked for at every place of a text
constexpr std::int64_t kLongestLength = 1 << 20;  // saved tokenizers write 1e30 for "no limit"

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
void add_token(TokenizerFiles& files, AddedToken token) {
  const auto same = [&](const AddedToken& other) { return other.content == token.content; };
  if (token.content.empty() || std::any_of(files.added.begin(), files.added.end(), same)) return;
  if (files.added.size() >= kMaxAddedTokens)
    throw input_error(files.where, ": more than ", kMaxAddedTokens, " added tokens");
  files.added.push_back(std::move(token));
}

void read_added_token(TokenizerFiles& files, const Json& json, std::int64_t id, const std::string& where) {
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

void read_tokenizer_json(TokenizerFiles& files, const fs::path& path) {
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

void read_token_names(TokenizerFiles& files, const Json& config, const std::string& where) {
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
void add_special_tokens(TokenizerFiles& files, const Json& names) {
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

void read_max_length(TokenizerFiles& files, const Json& config, const std::string& where) {
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
void read_settings(TokenizerFiles& files, const fs::path& folder) {
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

}  // namespace

TokenizerFiles read_tokenizer_files(const fs::path& folder) {
  TokenizerFiles files;
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

}  // namespace laptopdiff::diffusion
