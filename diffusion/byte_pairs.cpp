#include "diffusion/byte_pairs.h"

#include <queue>
#include <tuple>

#include "runtime/error.h"

namespace laptopdiff::diffusion {
namespace {

constexpr const char* kWordEnd = "</w>";

std::array<std::string, 256> make_byte_symbols() {
  std::array<std::string, 256> symbols;
  const auto is_printable = [](int b) { return (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174; };
  int next_substitute = 0x100;
  for (int b = 0; b < 256; ++b) {
    const int code = is_printable(b) ? b : next_substitute++;
    auto& symbol = symbols[static_cast<std::size_t>(b)];
    if (code >= 0x80) symbol += static_cast<char>(0xC0 | (code >> 6));
    symbol += static_cast<char>(code < 0x80 ? code : 0x80 | (code & 0x3F));
  }
  return symbols;
}

// A word under merging: a doubly linked list in an array, so that a merge costs no shifting.
struct Node {
  std::int64_t id = 0;
  std::ptrdiff_t previous = -1, next = -1;
  bool alive = true;
};

struct Candidate {
  std::int64_t rank = 0;
  std::ptrdiff_t left = 0;
  std::int64_t left_id = 0, right_id = 0;
  bool operator>(const Candidate& other) const { return std::tie(rank, left) > std::tie(other.rank, other.left); }
};

}  // namespace

const std::array<std::string, 256>& byte_symbols() {
  static const std::array<std::string, 256> symbols = make_byte_symbols();
  return symbols;
}

BytePairs::BytePairs(const Vocabulary& vocabulary, const Merges& merges, std::int64_t unknown,
                     const std::string& where) {
  const auto id_or_unknown = [&](const std::string& token) {
    const auto found = vocabulary.find(token);
    return found == vocabulary.end() ? unknown : found->second;
  };
  for (std::size_t b = 0; b < 256; ++b) {
    inner_[b] = id_or_unknown(byte_symbols()[b]);
    last_[b] = id_or_unknown(byte_symbols()[b] + kWordEnd);
  }
  for (std::size_t rank = 0; rank < merges.size(); ++rank) {
    const auto& [left, right] = merges[rank];
    for (const auto& token : {left, right, left + right}) {
      if (vocabulary.count(token)) continue;
      throw runtime::input_error(where, ": merge ", rank, " `", left, " ", right, "` needs the token `", token,
                                 "`, which the vocabulary lacks; do both files come from the same tokenizer?");
    }
    merges_.insert_or_assign({vocabulary.at(left), vocabulary.at(right)},
                             Merge{static_cast<std::int64_t>(rank), vocabulary.at(left + right)});
  }
}

const BytePairs::Merge* BytePairs::find(std::int64_t left, std::int64_t right) const {
  const auto found = merges_.find({left, right});
  return found == merges_.end() ? nullptr : &found->second;
}

void BytePairs::append_ids(std::string_view word, std::vector<std::int64_t>& out) const {
  const auto count = static_cast<std::ptrdiff_t>(word.size());
  std::vector<Node> nodes(word.size());
  std::priority_queue<Candidate, std::vector<Candidate>, std::greater<>> queue;
  const auto at = [&](std::ptrdiff_t i) -> Node& { return nodes[static_cast<std::size_t>(i)]; };
  const auto offer = [&](std::ptrdiff_t left, std::ptrdiff_t right) {
    if (left < 0 || right < 0) return;
    if (const Merge* merge = find(at(left).id, at(right).id))
      queue.push({merge->rank, left, at(left).id, at(right).id});
  };
  for (std::ptrdiff_t i = 0; i < count; ++i) {
    const auto byte = static_cast<unsigned char>(word[static_cast<std::size_t>(i)]);
    at(i) = {i + 1 == count ? last_[byte] : inner_[byte], i - 1, i + 1 == count ? -1 : i + 1, true};
  }
  for (std::ptrdiff_t i = 0; i + 1 < count; ++i) offer(i, i + 1);
  while (!queue.empty()) {
    const Candidate best = queue.top();
    queue.pop();
    Node& left = at(best.left);
    // An earlier merge may have taken either side away.
    if (!left.alive || left.id != best.left_id || left.next < 0 || at(left.next).id != best.right_id) continue;
    Node& right = at(left.next);
    left.id = find(best.left_id, best.right_id)->result;
    right.alive = false;
    left.next = right.next;
    if (left.next >= 0) at(left.next).previous = best.left;
    offer(left.previous, best.left);
    offer(best.left, left.next);
  }
  for (std::ptrdiff_t i = 0; i >= 0 && i < count; i = at(i).next) out.push_back(at(i).id);
}

}  // namespace laptopdiff::diffusion
