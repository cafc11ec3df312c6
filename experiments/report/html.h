// Text into HTML, and bytes into data URIs.
#pragma once

#include <string>
#include <string_view>

namespace laptopdiff::report {

// Safe between tags and inside quoted attributes: & < > " ' become entities, control characters U+FFFD.
std::string escape(std::string_view text);

// The same, with places to break a line after each underscore: names of arms are long.
std::string breakable(std::string_view text);

// RFC 4648 with padding.
std::string base64(std::string_view bytes);

// <p class="missing">: says what a section lacks, instead of leaving a gap.
std::string missing(std::string_view sentence);

// A <details> with its summary line; `body` is HTML.
std::string details(std::string_view summary, const std::string& body);

// A chart or table with its caption; `body` and `caption` are HTML. A wide body scrolls sideways on a small screen.
std::string figure(const std::string& body, const std::string& caption);

// A scroll frame that a keyboard can reach too.
std::string scrolling(const std::string& body, std::string_view label);

// An entry of a legend: `mark` is HTML, `text` is escaped.
std::string legend_entry(const std::string& mark, std::string_view text);
std::string legend(const std::string& entries);

}  // namespace laptopdiff::report
