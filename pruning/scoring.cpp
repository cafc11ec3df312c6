#include "pruning/scoring.h"

#include <torch/types.h>

#include <cmath>
#include <cstdio>
#include <map>

#include "runtime/error.h"
#include "runtime/processes.h"
#include "runtime/progress.h"
#include "runtime/stop.h"

namespace laptopdiff::pruning {
namespace {

using runtime::cat;
using runtime::TensorMap;

constexpr const char* kStopped = "finished work is kept; run the same command again to go on";

// One piece of work.
struct Piece {
  Block block;
  std::int64_t part = 0;
};

std::string block_name(const Block& block) {
  char text[64];
  std::snprintf(text, sizeof text, "samples-%06lld-%06lld", static_cast<long long>(block.first),
                static_cast<long long>(block.last));
  return text;
}

std::string part_name(const Block& block, std::int64_t part) {
  char text[32];
  std::snprintf(text, sizeof text, "-part-%04lld", static_cast<long long>(part));
  return block_name(block) + text;
}

std::vector<Block> blocks_of(const Measurement& measurement, std::int64_t samples) {
  std::vector<Block> blocks;
  for (std::int64_t first = 0; first < samples; first += measurement.block_samples()) {
    blocks.push_back(
        {static_cast<std::int64_t>(blocks.size()), first, std::min(samples, first + measurement.block_samples())});
  }
  return blocks;
}

class SharedWork {
 public:
  SharedWork(Measurement& measurement, WorkFolder& folder, std::int64_t samples)
      : measurement_(measurement), folder_(folder), blocks_(blocks_of(measurement, samples)) {}

  Measured run() {
    const std::vector<Piece> missing = agree_on_missing();
    std::map<std::int64_t, std::int64_t> open;  // pieces that a block lacks
    for (const Piece& piece : missing) ++open[piece.block.index];
    const auto& all = runtime::processes();
    const std::size_t first = missing.size() * static_cast<std::size_t>(all.rank) / static_cast<std::size_t>(all.size),
                      last =
                          missing.size() * static_cast<std::size_t>(all.rank + 1) / static_cast<std::size_t>(all.size);
    do_share(
        {missing.begin() + static_cast<std::ptrdiff_t>(first), missing.begin() + static_cast<std::ptrdiff_t>(last)},
        open, missing.size());
    runtime::barrier();
    Measured measured;
    if (!all.first()) return measured;
    std::vector<at::Tensor> values, grams;
    for (const Block& block : blocks_) {
      if (!folder_.load(block_name(block))) fold_parts(block);  // its parts were done by several processes
      const TensorMap folded = need(block_name(block));
      values.push_back(folded.at("values").clone());
      if (folded.contains("gram")) grams.push_back(folded.at("gram").clone());
    }
    measured.values = at::cat(values, 1);
    if (!grams.empty()) measured.gram = at::cat(grams, 0);
    return measured;
  }

 private:
  // The first process looks, so that all go by one list even where a network file system shows them different files.
  std::vector<Piece> agree_on_missing() const {
    std::string text;
    if (runtime::processes().first()) {
      for (const Block& block : blocks_) {
        if (folder_.load(block_name(block))) continue;
        for (std::int64_t part = 0; part < measurement_.parts(); ++part) {
          if (measurement_.parts() == 1 || !folder_.load(part_name(block, part)))
            text += cat(block.index, " ", part, " ");
        }
      }
    }
    std::istringstream in(runtime::broadcast(text));
    std::vector<Piece> missing;
    for (std::size_t block = 0; in >> block;) {
      std::int64_t part = 0;
      in >> part;
      missing.push_back({blocks_.at(block), part});
    }
    return missing;
  }

  void do_share(const std::vector<Piece>& own, const std::map<std::int64_t, std::int64_t>& open, std::size_t missing) {
    // The others' share is not seen from here, so this one's progress stands for all.
    const std::size_t total = blocks_.size() * static_cast<std::size_t>(measurement_.parts());
    const bool resumed = missing < total;
    const auto samples_of = [&](double pieces) {
      return static_cast<std::int64_t>(pieces * static_cast<double>(blocks_.empty() ? 0 : blocks_.back().last) /
                                       static_cast<double>(std::max<std::size_t>(1, total)));
    };
    const auto done = static_cast<double>(total - missing);
    const double scale = own.empty() ? 0 : static_cast<double>(missing) / static_cast<double>(own.size());
    runtime::Progress progress(resumed ? "score (continued)" : "score", samples_of(static_cast<double>(total)),
                               "samples", samples_of(done));
    std::map<std::int64_t, std::int64_t> finished;
    for (std::size_t i = 0; i < own.size(); ++i) {
      const auto& [block, part] = own[i];
      runtime::throw_if_stopped(kStopped);
      const TensorMap tensors = measurement_.measure(block, part);
      if (measurement_.parts() == 1) {
        store_folded(block, {tensors});
      } else {
        folder_.store(part_name(block, part), tensors);
        if (++finished[block.index] == open.at(block.index)) fold_parts(block);
      }
      progress.update(samples_of(done + static_cast<double>(i + 1) * scale));
    }
    progress.finish();
  }

  void store_folded(const Block& block, const std::vector<TensorMap>& parts) {
    const Measured folded = measurement_.fold(block, parts);
    TensorMap tensors{{"values", folded.values}};
    if (folded.gram.defined()) tensors["gram"] = folded.gram;
    folder_.store(block_name(block), tensors);
  }

  void fold_parts(const Block& block) {
    std::vector<TensorMap> parts;
    for (std::int64_t part = 0; part < measurement_.parts(); ++part) parts.push_back(need(part_name(block, part)));
    store_folded(block, parts);
    for (std::int64_t part = 0; part < measurement_.parts(); ++part) folder_.drop(part_name(block, part));
  }

  TensorMap need(const std::string& piece) const {
    if (auto found = folder_.load(piece)) return std::move(*found);
    throw runtime::resource_error("piece ", piece, " of the scoring is not in ", folder_.path().string(),
                                  " though its process is done; all processes need one shared folder");
  }

  Measurement& measurement_;
  WorkFolder& folder_;
  std::vector<Block> blocks_;
};

Estimate estimate_of(const at::Tensor& values, const at::Tensor& weights, double total, const std::string& why_null) {
  Estimate e;
  const double mean = (values * weights).sum().item<double>() / total;
  if (!std::isfinite(mean)) {
    e.why_null = why_null;
    return e;
  }
  e.value = mean;
  if (total > 1) {
    const double squares = ((values - mean).square() * weights).sum().item<double>();
    e.standard_error = std::sqrt(squares / (total - 1)) / std::sqrt(total);
  }
  return e;
}

Gram gram_of(const at::Tensor& mean) {
  Gram gram;
  const auto values = mean.accessor<double, 2>();
  for (std::int64_t i = 0; i < mean.size(0); ++i) {
    std::vector<std::optional<double>> row;
    for (std::int64_t j = 0; j < mean.size(1); ++j)
      row.push_back(std::isfinite(values[i][j]) ? std::optional(values[i][j]) : std::nullopt);
    gram.push_back(std::move(row));
  }
  return gram;
}

// Rows of units, then of shells.
std::pair<std::vector<Estimate>, std::vector<Estimate>> split(const std::vector<Estimate>& rows, std::size_t units) {
  const auto middle = rows.begin() + static_cast<std::ptrdiff_t>(units);
  return {{rows.begin(), middle}, {middle, rows.end()}};
}

ScoreBin make_bin(const Removables& removables, const Measured& measured, const at::Tensor& inside, int first, int last,
                  const std::string& why_null) {
  ScoreBin bin;
  bin.first = first;
  bin.last = last;
  bin.samples = inside.size(0);
  Means means;
  if (bin.samples == 0) {
    means.rows.assign(static_cast<std::size_t>(removables.rows()),
                      {std::nullopt, 0, "no calibration sample in this interval"});
  } else {
    Measured own{measured.values.index_select(1, inside), {}};
    if (measured.gram.defined()) own.gram = measured.gram.index_select(0, inside);
    means = means_of(own, at::ones({bin.samples}, at::kDouble), why_null);
  }
  std::tie(bin.unit_scores, bin.shell_scores) = split(means.rows, removables.units.size());
  bin.gram = std::move(means.gram);
  return bin;
}

}  // namespace

Measured measure_samples(Measurement& measurement, WorkFolder& folder, std::int64_t samples) {
  return SharedWork(measurement, folder, samples).run();
}

Means means_of(const Measured& measured, const at::Tensor& weights, const std::string& why_null) {
  Means means;
  const double total = weights.sum().item<double>();
  for (std::int64_t row = 0; row < measured.values.size(0); ++row)
    means.rows.push_back(estimate_of(measured.values[row], weights, total, why_null));
  if (measured.gram.defined())
    means.gram = gram_of((measured.gram * weights.view({-1, 1, 1})).sum(0) / total);  // [R, R]
  return means;
}

Scores summarise(const unet::Program& base, const Removables& removables, const Measured& measured,
                 const std::string& why_null) {
  Scores scores;
  scores.base = base.config;
  scores.units = removables.units;
  Means means = means_of(measured, at::ones({measured.values.size(1)}, at::kDouble), why_null);
  std::vector<Estimate> shells;
  std::tie(scores.unit_scores, shells) = split(means.rows, removables.units.size());
  for (std::size_t i = 0; i < shells.size(); ++i) {
    const unet::Program& without = removables.without[removables.units.size() + i];
    scores.shells.push_back({removables.shells[i].path, removables.shells[i].units, base.params() - without.params(),
                             base.macs() - without.macs(), shells[i]});
  }
  scores.gram = std::move(means.gram);
  return scores;
}

void warn_of_missing(const Scores& scores) {
  const auto warn = [](const std::string& name, const Estimate& estimate) {
    if (!estimate.value) runtime::warn(cat(name, ": ", estimate.why_null, "; it gets no score and will be kept"));
  };
  for (std::size_t i = 0; i < scores.units.size(); ++i) warn(scores.units[i].layer, scores.unit_scores[i]);
  for (const ShellScore& shell : scores.shells) warn(shell.path, shell.score);
}

void check_timesteps(const at::Tensor& timesteps, int schedule) {
  const at::Tensor times = timesteps.to(at::kCPU, at::kDouble);
  const double lowest = times.min().item<double>(), highest = times.max().item<double>();
  if (lowest < 0 || highest >= schedule) {
    throw runtime::input_error("--bins: timestep ", lowest < 0 ? lowest : highest,
                               " of the calibration set is not inside [0, ", schedule, ")");
  }
}

std::vector<ScoreBin> make_bins(const Removables& removables, const Measured& measured, const at::Tensor& timesteps,
                                int count, int schedule, const std::string& why_null) {
  check_timesteps(timesteps, schedule);
  const at::Tensor times = timesteps.to(at::kCPU, at::kDouble);
  std::vector<ScoreBin> bins;
  for (int i = 0; i < count; ++i) {
    const int first = static_cast<int>(std::int64_t{schedule} * i / count),
              last = static_cast<int>(std::int64_t{schedule} * (i + 1) / count);
    const at::Tensor inside = at::nonzero(times.ge(first).logical_and(times.lt(last))).flatten();
    bins.push_back(make_bin(removables, measured, inside, first, last, why_null));
  }
  return bins;
}

}  // namespace laptopdiff::pruning
