#include <cmath>

#include "pruning/intervals.h"
#include "tests/support/architectures.h"
#include "tests/support/thrown.h"

#include <doctest/doctest.h>

using namespace laptopdiff;
using pruning::IntervalRule;
using pruning::Mask;

namespace {

// Ten bins of 100 timesteps; the loss falls with the timestep, samples differ from bin to bin.
pruning::Scores scores_with_bins() {
  pruning::Scores scores;
  scores.criterion = "output_loss";
  scores.base = unet::parse_config(test::sd15(), "sd15");
  scores.units = unet::find_units(unet::build_base(scores.base));
  const std::size_t n = scores.units.size();
  for (int b = 0; b < 10; ++b) {
    pruning::ScoreBin bin;
    bin.first = 100 * b;
    bin.last = 100 * (b + 1);
    bin.samples = 1 + b % 3;
    for (std::size_t i = 0; i < n; ++i) bin.unit_scores.push_back({(1.0 + static_cast<double>(i)) / (1 + b), 0.1, ""});
    bin.gram.assign(n, std::vector<std::optional<double>>(n, 0.5 / (1 + b)));
    for (std::size_t i = 0; i < n; ++i) bin.gram[i][i] = *bin.unit_scores[i].value;
    scores.samples += bin.samples;
    scores.bins.push_back(bin);
  }
  scores.unit_scores.resize(n);
  scores.gram.assign(n, std::vector<std::optional<double>>(n, 0.0));
  return scores;
}

}  // namespace

TEST_CASE("intervals of equal width cut where the timesteps do") {
  const pruning::Scores scores = scores_with_bins();
  CHECK(pruning::cut_bins(scores, 1, IntervalRule::width) == std::vector<int>{0, 10});
  CHECK(pruning::cut_bins(scores, 2, IntervalRule::width) == std::vector<int>{0, 5, 10});
  CHECK(pruning::cut_bins(scores, 4, IntervalRule::width) == std::vector<int>{0, 2, 5, 7, 10});  // 250 is as near 200
  CHECK(pruning::cut_bins(scores, 10, IntervalRule::width) == std::vector<int>{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10});
}

TEST_CASE("intervals of equal loss cut where half of the summed scores is reached") {
  // 1, 1/2, 1/3, ... of 2.93: half is 1.46, nearest after two bins (1.5).
  CHECK(pruning::cut_bins(scores_with_bins(), 2, IntervalRule::loss) == std::vector<int>{0, 2, 10});
}

TEST_CASE("intervals of equal log-SNR cut where the signal does") {
  const pruning::Scores scores = scores_with_bins();
  pruning::LogSnr log_snr = {9, 8, 7, 6, 5, 4, 3, 2, 1, 0, -31};
  CHECK(pruning::cut_bins(scores, 2, IntervalRule::snr, log_snr) == std::vector<int>{0, 9, 10});
  // Every interval has a bin, however lopsided the schedule.
  log_snr = {100, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0};
  CHECK(pruning::cut_bins(scores, 3, IntervalRule::snr, log_snr) == std::vector<int>{0, 1, 2, 10});
  log_snr[5] = 7;
  CHECK(test::thrown_by([&] { pruning::cut_bins(scores, 2, IntervalRule::snr, log_snr); }).says("use --by width"));
  CHECK(test::thrown_by([&] { pruning::cut_bins(scores, 2, IntervalRule::snr); }).says("0 values for 11 edges"));
}

TEST_CASE("joined bins are means by samples, and all of them are the whole") {
  const pruning::Scores scores = scores_with_bins();
  const pruning::Scores two = pruning::join_bins(scores, 1, 3);  // samples 2 and 3
  CHECK(two.samples == 5);
  CHECK(two.bins.empty());
  CHECK(*two.unit_scores[3].value == doctest::Approx(0.4 * 4.0 / 2 + 0.6 * 4.0 / 3));
  CHECK(two.unit_scores[3].standard_error == doctest::Approx(0.1 * std::hypot(0.4, 0.6)));
  CHECK(*two.gram[1][2] == doctest::Approx(0.4 * 0.5 / 2 + 0.6 * 0.5 / 3));
  const pruning::Scores all = pruning::join_bins(scores, 0, 10);
  double expected = 0;
  for (const pruning::ScoreBin& bin : scores.bins)
    expected += static_cast<double>(bin.samples) * *bin.unit_scores[7].value / static_cast<double>(scores.samples);
  CHECK(all.samples == scores.samples);
  CHECK(*all.unit_scores[7].value == doctest::Approx(expected));
  CHECK(*all.gram[7][7] == doctest::Approx(expected));
}

TEST_CASE("bins without samples count nothing, a unit without a score in one bin has none in the interval") {
  pruning::Scores scores = scores_with_bins();
  scores.bins[1].samples = 0;
  scores.bins[1].gram.clear();
  for (pruning::Estimate& estimate : scores.bins[1].unit_scores) estimate = {};
  scores.bins[2].unit_scores[4] = {std::nullopt, 0, "not finite"};
  scores.bins[2].gram[4][4] = std::nullopt;
  const pruning::Scores joined = pruning::join_bins(scores, 0, 3);
  CHECK(joined.samples == scores.bins[0].samples + scores.bins[2].samples);
  CHECK(joined.unit_scores[3].value.has_value());
  CHECK_FALSE(joined.unit_scores[4].value.has_value());
  CHECK(joined.unit_scores[4].why_null == "not finite");
  CHECK_FALSE(joined.gram[4][4].has_value());
  CHECK(
      test::thrown_by([&] { pruning::join_bins(scores, 1, 2); }).says("no calibration sample has a timestep in [100"));
  CHECK(test::thrown_by([&] { pruning::cut_bins(scores, 2, IntervalRule::loss); }).says("[100, 200)"));
}

TEST_CASE("intervals that cannot be are refused") {
  pruning::Scores scores = scores_with_bins();
  CHECK(test::thrown_by([&] { pruning::cut_bins(scores, 11, IntervalRule::width); }).says("expected 1 to 10"));
  scores.bins.clear();
  CHECK(test::thrown_by([&] { pruning::cut_bins(scores, 2, IntervalRule::width); }).says("laptopdiff score --bins"));
  CHECK(test::thrown_by([&] { pruning::parse_rule("time"); }).says("width"));
}

TEST_CASE("overlap of masks: shared over joint removals, and who keeps a layer") {
  const pruning::Overlap o = pruning::overlap({Mask{1, 1, 0, 0}, Mask{1, 0, 1, 0}, Mask{0, 0, 0, 0}});
  CHECK(o.jaccard[0][0] == 1);
  CHECK(o.jaccard[0][1] == doctest::Approx(1.0 / 3));
  CHECK(o.jaccard[1][0] == o.jaccard[0][1]);
  CHECK(o.jaccard[0][2] == 0);
  CHECK(o.jaccard[2][2] == 1);
  CHECK(o.kept_by == std::vector<int>{1, 2, 2, 3});
}
