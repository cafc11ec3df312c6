#include "experiments/report/html.h"

#include <cstdint>

#include "runtime/error.h"

namespace laptopdiff::report {

using runtime::cat;

std::string escape(std::string_view text) {
  std::string out;
  out.reserve(text.size() + text.size() / 8);
  for (const char c : text) {
    switch (c) {
      case '&': out += "&amp;"; break;
      case '<': out += "&lt;"; break;
      case '>': out += "&gt;"; break;
      case '"': out += "&quot;"; break;
      case '\'': out += "&#39;"; break;
      default:
        if (static_cast<unsigned char>(c) < 0x20 && c != '\n' && c != '\t') out += "\xEF\xBF\xBD";
        else out += c;
    }
  }
  return out;
}

std::string breakable(std::string_view text) {
  std::string out;
  for (const char c : escape(text)) {
    out += c;
    if (c == '_') out += "<wbr>";
  }
  return out;
}

std::string base64(std::string_view bytes) {
  static constexpr char kAlphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string out;
  out.reserve((bytes.size() + 2) / 3 * 4);
  for (std::size_t i = 0; i < bytes.size(); i += 3) {
    const std::size_t left = bytes.size() - i;
    const auto byte = [&](std::size_t k) {
      return k < left ? static_cast<std::uint32_t>(static_cast<unsigned char>(bytes[i + k])) : 0u;
    };
    const std::uint32_t word = byte(0) << 16 | byte(1) << 8 | byte(2);
    for (std::size_t k = 0; k < 4; ++k) out += k <= left ? kAlphabet[word >> (18 - 6 * k) & 63] : '=';
  }
  return out;
}

std::string missing(std::string_view sentence) { return cat("<p class=\"missing\">", escape(sentence), "</p>\n"); }

std::string details(std::string_view summary, const std::string& body) {
  return cat("<details><summary>", escape(summary), "</summary>\n", body, "</details>\n");
}

std::string figure(const std::string& body, const std::string& caption) {
  return cat("<figure>", body, "<figcaption>", caption, "</figcaption></figure>\n");
}

std::string scrolling(const std::string& body, std::string_view label) {
  return cat("<div class=\"scroll\" role=\"region\" tabindex=\"0\" aria-label=\"", escape(label), "\">", body,
             "</div>\n");
}

std::string legend_entry(const std::string& mark, std::string_view text) {
  return cat("<li>", mark, escape(text), "</li>");
}

std::string legend(const std::string& entries) { return cat("<ul class=\"legend\">", entries, "</ul>\n"); }

}  // namespace laptopdiff::report
