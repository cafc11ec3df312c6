#include "diffusion/unicode.h"

#include "runtime/error.h"

#ifdef LAPTOPDIFF_HAVE_ICU
#include <unicode/bytestream.h>
#include <unicode/normalizer2.h>
#include <unicode/stringpiece.h>
#include <unicode/uchar.h>
#include <unicode/utf8.h>
#endif

namespace laptopdiff::diffusion {
namespace {

#ifdef LAPTOPDIFF_HAVE_ICU

void check_utf8(std::string_view text) {
  for (std::int32_t i = 0; i < static_cast<std::int32_t>(text.size());) {
    const std::int32_t at = i;
    UChar32 c = 0;
    U8_NEXT(text.data(), i, static_cast<std::int32_t>(text.size()), c);
    if (c < 0) throw runtime::input_error("text is not UTF-8: bad byte at offset ", at, "; save the file as UTF-8");
  }
}

std::string normal_form(std::string_view text) {
  UErrorCode status = U_ZERO_ERROR;
  const icu::Normalizer2* nfc = icu::Normalizer2::getNFCInstance(status);
  if (U_FAILURE(status)) throw runtime::resource_error("ICU has no normalisation data: ", u_errorName(status));
  std::string out;
  icu::StringByteSink<std::string> sink(&out);
  nfc->normalizeUTF8(0, icu::StringPiece(text.data(), static_cast<std::int32_t>(text.size())), sink, nullptr, status);
  if (U_FAILURE(status)) throw runtime::input_error("text cannot be normalised: ", u_errorName(status));
  return out;
}

void append_utf8(std::string& out, UChar32 c) {
  char bytes[U8_MAX_LENGTH];
  std::int32_t length = 0;
  U8_APPEND_UNSAFE(bytes, length, c);
  out.append(bytes, static_cast<std::size_t>(length));
}

void append_lower(std::string& out, UChar32 c) {
  constexpr UChar32 kCapitalIWithDot = 0x130, kCombiningDotAbove = 0x307;
  if (c != kCapitalIWithDot) return append_utf8(out, u_tolower(c));
  // The one character whose lower case, taken alone, is two characters.
  append_utf8(out, 'i');
  append_utf8(out, kCombiningDotAbove);
}

#endif

}  // namespace

#ifdef LAPTOPDIFF_HAVE_ICU

bool has_unicode() { return true; }

std::string clean_text(std::string_view text) {
  if (text.size() > (std::size_t{1} << 30)) throw runtime::input_error("text of ", text.size(), " bytes is too long");
  check_utf8(text);
  const std::string normal = normal_form(text);
  std::string out;
  bool after_space = false;
  for (std::int32_t i = 0; i < static_cast<std::int32_t>(normal.size());) {
    UChar32 c = 0;
    U8_NEXT_UNSAFE(normal.data(), i, c);
    const bool space = u_isUWhiteSpace(c);
    if (!space) append_lower(out, c);
    else if (!after_space) out += ' ';
    after_space = space;
  }
  return out;
}

Character character_at(std::string_view text, std::size_t position) {
  std::int32_t i = 0;
  UChar32 c = 0;
  const char* start = text.data() + position;
  U8_NEXT_UNSAFE(start, i, c);
  const std::uint32_t mask = U_GET_GC_MASK(c);
  CharClass kind = CharClass::other;
  if (u_isUWhiteSpace(c)) kind = CharClass::space;
  else if (mask & U_GC_L_MASK) kind = CharClass::letter;
  else if (mask & U_GC_N_MASK) kind = CharClass::number;
  return {kind, static_cast<std::size_t>(i)};
}

#else

namespace {
bool is_ascii_space(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }
}  // namespace

bool has_unicode() { return false; }

std::string clean_text(std::string_view text) {
  std::string out;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (static_cast<unsigned char>(c) >= 0x80) {
      throw runtime::input_error("text has a non-ASCII character at byte ", i,
                                 ", but this build has no ICU; install it (libicu-dev) and build again");
    }
    if (!is_ascii_space(c)) out += c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
    else if (out.empty() || out.back() != ' ') out += ' ';
  }
  return out;
}

Character character_at(std::string_view text, std::size_t position) {
  const char c = text[position];
  if (is_ascii_space(c)) return {CharClass::space, 1};
  if (c >= 'a' && c <= 'z') return {CharClass::letter, 1};
  if (c >= '0' && c <= '9') return {CharClass::number, 1};
  return {CharClass::other, 1};
}

#endif

}  // namespace laptopdiff::diffusion
