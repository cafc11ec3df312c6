#include "runtime/error.h"

#include <algorithm>
#include <numeric>

namespace laptopdiff::runtime {
namespace {

std::size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<std::size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), std::size_t{0});
  for (std::size_t i = 0; i < a.size(); ++i) {
    std::size_t diagonal = row[0];
    row[0] = i + 1;
    for (std::size_t j = 0; j < b.size(); ++j) {
      const std::size_t substituted = diagonal + (a[i] == b[j] ? 0 : 1);
      diagonal = row[j + 1];
      row[j + 1] = std::min({substituted, row[j] + 1, row[j + 1] + 1});
    }
  }
  return row[b.size()];
}

}  // namespace

std::vector<std::string> near_names(std::string_view name, const std::vector<std::string>& candidates,
                                    std::size_t most) {
  const std::string_view wanted = name.substr(0, 200);  // names come from files: bound the work
  std::vector<std::pair<std::size_t, std::string>> ranked;
  for (const std::string& candidate : candidates) {
    const std::size_t distance = edit_distance(wanted, std::string_view(candidate).substr(0, 200));
    if (distance <= std::max<std::size_t>(2, wanted.size() / 2)) ranked.emplace_back(distance, candidate);
  }
  std::sort(ranked.begin(), ranked.end());
  if (ranked.size() > most) ranked.resize(most);
  std::vector<std::string> names;
  for (auto& [distance, candidate] : ranked) names.push_back(std::move(candidate));
  return names;
}

std::string did_you_mean(std::string_view name, const std::vector<std::string>& candidates) {
  const std::vector<std::string> near = near_names(name, candidates);
  if (!near.empty()) return cat(" (did you mean `", join(near, "` or `"), "`?)");
  if (!candidates.empty() && candidates.size() <= 16) return cat(" (known: ", join(candidates), ")");
  return "";
}

std::string join(const std::vector<std::string>& words, std::string_view separator) {
  std::string joined;
  for (const std::string& word : words) {
    if (!joined.empty()) joined += separator;
    joined += word;
  }
  return joined;
}

std::string listing(const std::vector<std::string>& words, std::size_t most, std::string_view separator) {
  const std::size_t shown = std::min(words.size(), most);
  const std::vector<std::string> first(words.begin(), words.begin() + static_cast<std::ptrdiff_t>(shown));
  return words.size() == shown ? join(first, separator)
                               : cat(join(first, separator), separator, "and ", words.size() - shown, " more");
}

}  // namespace laptopdiff::runtime
