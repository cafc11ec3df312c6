#include "pruning/intervals.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "runtime/error.h"

namespace laptopdiff::pruning {
namespace {

using runtime::cat;
using runtime::usage_error;

constexpr std::array<const char*, 3> kRules = {"width", "snr", "loss"};

// Sum of the units' scores times the bin's timesteps: what the bin adds to the loss summed over the schedule.
double bin_loss(const Scores& scores, const ScoreBin& bin) {
  double sum = 0;
  for (std::size_t i = 0; i < scores.units.size(); ++i) sum += bin.unit_scores[i].value.value_or(0);
  return sum * (bin.last - bin.first);
}

// A coordinate at every edge of the bins, rising from the first to the last; intervals get equal parts of its range.
std::vector<double> coordinates(const Scores& scores, IntervalRule rule, const LogSnr& log_snr) {
  std::vector<double> at;
  switch (rule) {
    case IntervalRule::width:
      for (const ScoreBin& bin : scores.bins) at.push_back(bin.first);
      at.push_back(scores.bins.back().last);
      break;
    case IntervalRule::snr:
      if (log_snr.size() != scores.bins.size() + 1)
        throw usage_error("intervals by snr: ", log_snr.size(), " values for ", scores.bins.size() + 1, " edges");
      for (const double value : log_snr) at.push_back(-value);
      break;
    case IntervalRule::loss:
      at.push_back(0);
      for (const ScoreBin& bin : scores.bins) {
        if (bin.samples == 0) {
          throw usage_error("intervals by loss: no calibration sample has a timestep in [", bin.first, ", ", bin.last,
                            "); score with fewer bins or more samples");
        }
        at.push_back(at.back() + bin_loss(scores, bin));
      }
      break;
  }
  for (std::size_t i = 1; i < at.size(); ++i) {
    if (!std::isfinite(at[i]) || at[i] < at[i - 1])
      throw usage_error("intervals by ", rule_name(rule), ": the ", rule == IntervalRule::snr ? "noise" : "loss",
                        " does not grow from timestep ", scores.bins[i - 1].first, " to ", scores.bins[i - 1].last,
                        "; use --by width");
  }
  return at;
}

Estimate join(const std::vector<const Estimate*>& parts, const std::vector<double>& weights) {
  Estimate joined;
  double sum = 0, variance = 0;
  for (std::size_t i = 0; i < parts.size(); ++i) {
    if (!parts[i]->value) return *parts[i];
    sum += weights[i] * *parts[i]->value;
    variance += weights[i] * weights[i] * parts[i]->standard_error * parts[i]->standard_error;
  }
  joined.value = sum;
  joined.standard_error = std::sqrt(variance);
  return joined;
}

}  // namespace

const char* rule_name(IntervalRule rule) { return kRules[static_cast<std::size_t>(rule)]; }

IntervalRule parse_rule(const std::string& name) {
  const auto found = std::find(kRules.begin(), kRules.end(), name);
  if (found == kRules.end()) {
    throw usage_error("--by ", name, ": expected width (equal timesteps), snr (equal log-SNR) or loss (equal loss)");
  }
  return static_cast<IntervalRule>(found - kRules.begin());
}

std::vector<int> cut_bins(const Scores& scores, int intervals, IntervalRule rule, const LogSnr& log_snr) {
  const int bins = static_cast<int>(scores.bins.size());
  if (bins == 0) throw usage_error("the scores have no bins of timesteps; make them with `laptopdiff score --bins N`");
  if (intervals < 1 || intervals > bins) {
    throw usage_error("--intervals ", intervals, ": expected 1 to ", bins,
                      ", the bins of timesteps in the scores; score with more --bins");
  }
  const std::vector<double> at = coordinates(scores, rule, log_snr);
  std::vector<int> begin{0};
  for (int i = 1; i < intervals; ++i) {
    const double target = at.front() + (at.back() - at.front()) * i / intervals;
    int best = begin.back() + 1;  // a bin for the interval before
    for (int edge = best; edge <= bins - (intervals - i); ++edge) {
      if (std::abs(at[static_cast<std::size_t>(edge)] - target) < std::abs(at[static_cast<std::size_t>(best)] - target))
        best = edge;
    }
    begin.push_back(best);
  }
  begin.push_back(bins);
  return begin;
}

Scores join_bins(const Scores& scores, int first, int last) {
  std::vector<const ScoreBin*> used;
  Scores joined = scores;
  joined.bins.clear();
  joined.samples = 0;
  for (int b = first; b < last; ++b) {
    const ScoreBin& bin = scores.bins[static_cast<std::size_t>(b)];
    if (bin.samples == 0) continue;
    used.push_back(&bin);
    joined.samples += bin.samples;
  }
  if (used.empty()) {
    throw usage_error("no calibration sample has a timestep in [", scores.bins[static_cast<std::size_t>(first)].first,
                      ", ", scores.bins[static_cast<std::size_t>(last) - 1].last,
                      "); take fewer intervals or score more samples");
  }
  std::vector<double> weights;
  for (const ScoreBin* bin : used)
    weights.push_back(static_cast<double>(bin->samples) / static_cast<double>(joined.samples));
  const auto join_all = [&](auto list, std::size_t i) {
    std::vector<const Estimate*> parts;
    for (const ScoreBin* bin : used) parts.push_back(&(bin->*list)[i]);
    return join(parts, weights);
  };
  for (std::size_t i = 0; i < scores.units.size(); ++i) joined.unit_scores[i] = join_all(&ScoreBin::unit_scores, i);
  for (std::size_t i = 0; i < scores.shells.size(); ++i) joined.shells[i].score = join_all(&ScoreBin::shell_scores, i);
  for (std::size_t i = 0; i < joined.gram.size(); ++i) {
    for (std::size_t j = 0; j < joined.gram.size(); ++j) {
      std::optional<double> sum = 0;
      for (std::size_t b = 0; b < used.size(); ++b) {
        const std::optional<double>& entry = used[b]->gram[i][j];
        sum = sum && entry ? std::optional(*sum + weights[b] * *entry) : std::nullopt;
      }
      joined.gram[i][j] = sum;
    }
  }
  return joined;
}

Overlap overlap(const std::vector<Mask>& masks) {
  Overlap result;
  result.kept_by.assign(masks.empty() ? 0 : masks.front().size(), 0);
  for (const Mask& a : masks) {
    std::vector<double> row;
    for (const Mask& b : masks) {
      int both = 0, either = 0;
      for (std::size_t i = 0; i < a.size(); ++i) {
        both += a[i] != 0 && b[i] != 0 ? 1 : 0;
        either += a[i] != 0 || b[i] != 0 ? 1 : 0;
      }
      row.push_back(either == 0 ? 1.0 : static_cast<double>(both) / either);
    }
    result.jaccard.push_back(std::move(row));
    for (std::size_t i = 0; i < a.size(); ++i) result.kept_by[i] += a[i] == 0 ? 1 : 0;
  }
  return result;
}

}  // namespace laptopdiff::pruning
