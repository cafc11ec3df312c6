// Unicode for the tokenizer: clean-up and character classes. Needs ICU for anything beyond ASCII.
#pragma once

#include <string>
#include <string_view>

namespace laptopdiff::diffusion {

// Whether this build has ICU (for `doctor`).
bool has_unicode();

// NFC, each run of white space to one space, lower case (character by character, without context rules).
// Throws Error(bad_input) where the text is not UTF-8, or not ASCII in a build without ICU.
std::string clean_text(std::string_view text);

enum class CharClass { space, letter, number, other };

// The character that starts at `text[position]`: its class, and `length` bytes. `text` must be valid UTF-8, as
// clean_text returns it.
struct Character {
  CharClass kind = CharClass::other;
  std::size_t length = 1;
};
Character character_at(std::string_view text, std::size_t position);

}  // namespace laptopdiff::diffusion
