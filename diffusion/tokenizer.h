// The CLIP tokenizer: text -> ids, by byte-pair encoding over UTF-8 bytes. Knows no torch.
//
// Clean-up as in the transformers port: NFC, runs of white space to one space, lower case. Splitting, first match wins:
// the two special tokens, 's 't 're 've 'm 'll 'd, a run of letters, one number, a run of anything else but space.
// Unicode classes need ICU (LAPTOPDIFF_HAVE_ICU); without it text with a non-ASCII character is refused.
// Method: Sennrich et al., "Neural machine translation of rare words with subword units", ACL 2016, on the byte
// alphabet of GPT-2; vocabulary of Radford et al., "Learning transferable visual models", 2021.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace laptopdiff::diffusion {

class Tokenizer {
 public:
  // Reads a tokenizer folder: vocab.json + merges.txt, or tokenizer.json alone; pad token and length come from
  // tokenizer_config.json and special_tokens_map.json where they are there.
  // Throws Error(bad_input) for missing files, merges outside the vocabulary, and special tokens without an id.
  static Tokenizer load(const std::filesystem::path& folder);

  // Ids of the text alone, without start and end token. Throws Error(bad_input) where the text is not UTF-8.
  std::vector<std::int64_t> ids(std::string_view text) const;

  // start + ids + end, cut to max_length() (the last entry is then the end token) and padded to it with `pad`, by
  // default the folder's own pad token. Scoring models pad with 0 whatever their folder says.
  std::vector<std::int64_t> encode(std::string_view text, std::optional<std::int64_t> pad = std::nullopt) const;

  std::int64_t start_id() const;
  std::int64_t end_id() const;
  std::int64_t pad_id() const;
  std::int64_t max_length() const;       // 77 for every CLIP
  std::int64_t vocabulary_size() const;  // highest id + 1
  std::optional<std::int64_t> id_of(std::string_view token) const;

 private:
  struct Tables;
  explicit Tokenizer(std::shared_ptr<const Tables> tables) : tables_(std::move(tables)) {}

  std::shared_ptr<const Tables> tables_;
};

}  // namespace laptopdiff::diffusion
