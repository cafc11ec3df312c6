#include "diffusion/tokenizer.h"

#include <algorithm>

#include "diffusion/byte_pairs.h"
#include "diffusion/tokenizer_files.h"
#include "diffusion/unicode.h"

namespace laptopdiff::diffusion {

struct Tokenizer::Tables {
  Vocabulary vocabulary;
  BytePairs pairs;
  std::vector<AddedToken> raw, normalized;  // longest first
  std::int64_t start = 0, end = 0, pad = 0, max_length = 0, size = 0;

  explicit Tables(TokenizerFiles files);
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

Tokenizer::Tables::Tables(TokenizerFiles files)
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

Tokenizer Tokenizer::load(const std::filesystem::path& folder) {
  return Tokenizer(std::make_shared<const Tables>(read_tokenizer_files(folder)));
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
