// What the files of a tokenizer folder say. Internal to diffusion/.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "diffusion/byte_pairs.h"

namespace laptopdiff::diffusion {

// A token that is taken out of the text as a whole: before the clean-up, or after it where `normalized`.
struct AddedToken {
  std::string content;
  std::int64_t id = 0;
  bool normalized = false;
};

struct TokenizerFiles {
  Vocabulary vocabulary;
  Merges merges;
  std::vector<AddedToken> added;  // the special tokens among them
  std::string unknown = "<|endoftext|>", start = "<|startoftext|>", end = "<|endoftext|>", pad = "<|endoftext|>";
  std::int64_t max_length = 77;
  std::string where;
};

// Reads a folder as Tokenizer::load describes. Throws Error(bad_input). Every special token is in the vocabulary.
TokenizerFiles read_tokenizer_files(const std::filesystem::path& folder);

}  // namespace laptopdiff::diffusion
