// Byte-pair encoding of one word over the 256-byte alphabet of GPT-2 and CLIP.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

namespace laptopdiff::diffusion {

using Vocabulary = std::unordered_map<std::string, std::int64_t>;
using Merges = std::vector<std::pair<std::string, std::string>>;

class BytePairs {
 public:
  // `merges` in rank order. `unknown` stands for symbols that the vocabulary lacks.
  // Throws Error(bad_input) naming the merge whose parts or result are not in the vocabulary.
  BytePairs(const Vocabulary& vocabulary, const Merges& merges, std::int64_t unknown, const std::string& where);

  // Appends the ids of `word`: its bytes as symbols, the last with the end-of-word mark, joined pair by pair, always
  // the known pair of lowest rank, the leftmost first.
  void append_ids(std::string_view word, std::vector<std::int64_t>& out) const;

 private:
  struct Merge {
    std::int64_t rank = 0, result = 0;
  };
  struct PairHash {
    std::size_t operator()(const std::pair<std::int64_t, std::int64_t>& pair) const {
      return std::hash<std::int64_t>()(pair.first * 1000003 + pair.second);
    }
  };
  const Merge* find(std::int64_t left, std::int64_t right) const;

  std::array<std::int64_t, 256> inner_{}, last_{};  // id of each byte inside a word and at its end
  std::unordered_map<std::pair<std::int64_t, std::int64_t>, Merge, PairHash> merges_;
};

// The printable character that stands for each byte, as UTF-8.
const std::array<std::string, 256>& byte_symbols();

}  // namespace laptopdiff::diffusion
