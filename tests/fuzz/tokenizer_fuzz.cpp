// Any bytes as the files of a tokenizer folder and a text, with a NUL between one and the next; an empty piece is a
// file that is not there. The text also goes through a tokenizer of CLIP's byte symbols.
#include <optional>

#include "diffusion/byte_pairs.h"
#include "diffusion/tokenizer.h"
#include "runtime/json.h"
#include "tests/fuzz/fuzz.h"

namespace {

using namespace laptopdiff;
using diffusion::Tokenizer;
namespace fs = std::filesystem;

constexpr const char* kFiles[] = {"tokenizer.json",          "vocab.json",       "merges.txt", "tokenizer_config.json",
                                  "special_tokens_map.json", "added_tokens.json"};

// The next piece; takes it off `bytes`.
std::string_view next_piece(std::string_view& bytes) {
  const std::size_t end = std::min(bytes.find('\0'), bytes.size());
  const std::string_view piece = bytes.substr(0, end);
  bytes.remove_prefix(std::min(end + 1, bytes.size()));
  return piece;
}

void check_text(const Tokenizer& tokenizer, std::string_view text) {
  std::vector<std::int64_t> ids, encoded;
  const auto encode = [&] {
    ids = tokenizer.ids(text);
    encoded = tokenizer.encode(text);
  };
  if (!fuzz::accepts(encode)) return;
  fuzz::require(encoded.size() == static_cast<std::size_t>(tokenizer.max_length()), "a prompt has the model's length");
  fuzz::require(encoded.front() == tokenizer.start_id(), "a prompt starts with the start token");
  for (const auto* list : {&ids, &encoded}) {
    for (const std::int64_t id : *list) {
      fuzz::require(id >= 0 && id < tokenizer.vocabulary_size(), "every id is one of the vocabulary");
    }
  }
}

// CLIP's 512 symbols and two special tokens; one merge, and an added token that is looked for after the clean-up.
const Tokenizer& byte_tokenizer() {
  static const Tokenizer tokenizer = [] {
    runtime::Json vocabulary = runtime::Json::object();
    const auto add = [&](const std::string& token) { vocabulary[token] = vocabulary.size(); };
    for (const std::string& symbol : diffusion::byte_symbols()) add(symbol);
    for (const std::string& symbol : diffusion::byte_symbols()) add(symbol + "</w>");
    for (const char* token : {"<|startoftext|>", "<|endoftext|>", "ab", "<new>"}) add(token);
    const fs::path folder = fuzz::scratch_folder() / "bytes";
    fs::create_directory(folder);
    fuzz::put_file(folder / "vocab.json", vocabulary.dump());
    fuzz::put_file(folder / "merges.txt", "#version: 0.2\na b\n");
    fuzz::put_file(folder / "added_tokens.json", R"({"<new>": 515})");
    return Tokenizer::load(folder);
  }();
  return tokenizer;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  std::string_view bytes = fuzz::text_of(data, size);
  const fs::path folder = fuzz::scratch_folder() / "input";
  fs::create_directory(folder);
  for (const char* name : kFiles) {
    const std::string_view piece = next_piece(bytes);
    if (piece.empty()) fs::remove(folder / name);
    else fuzz::put_file(folder / name, piece);
  }
  std::optional<Tokenizer> tokenizer;
  if (fuzz::accepts([&] { tokenizer = Tokenizer::load(folder); })) check_text(*tokenizer, bytes);
  check_text(byte_tokenizer(), bytes);
  return 0;
}
