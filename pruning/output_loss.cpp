#include "pruning/output_loss.h"

#include <torch/types.h>

#include <chrono>
#include <cmath>

#include "runtime/error.h"
#include "runtime/progress.h"
#include "runtime/stop.h"
#include "runtime/tensors.h"

namespace laptopdiff::pruning {
namespace {

using runtime::cat;
using unet::Program;

constexpr std::int64_t kMostSamplesAtOnce = 32;
constexpr double kSecondsBetweenSaves = 10;

// The variants to run: the base, each unit alone, then each shell that holds several units.
struct Variants {
  std::vector<Program> programs;  // base first
  std::vector<unet::ShellGroup> shells;
};

Variants make_variants(const Program& base, const std::vector<unet::Unit>& units, unet::Shell shell) {
  Variants variants;
  unet::Spec spec;
  spec.base = base.config;
  spec.shell = shell;
  variants.programs.push_back(base);
  for (const unet::Unit& unit : units) {
    spec.removed = {{unit.layer, unet::How::bypass}};
    variants.programs.push_back(unet::prune(base, spec));
  }
  if (shell == unet::Shell::keep) return variants;
  for (const unet::ShellGroup& group : unet::find_shells(base, units)) {
    if (group.units.size() < 2) continue;
    spec.removed = {{group.path, unet::How::bypass}};
    variants.programs.push_back(unet::prune(base, spec));
    variants.shells.push_back(group);
  }
  return variants;
}

// Sums over the samples done so far, in sample order: a killed run continues with the same bits.
struct Accumulator {
  std::vector<at::Tensor> losses;  // [V, b] a batch
  at::Tensor gram;                 // [V, V], sum over samples of per-element means, double
  std::int64_t done = 0;

  explicit Accumulator(std::int64_t variants) : gram(at::zeros({variants, variants}, at::kDouble)) {}

  void add(const at::Tensor& reference, const std::vector<at::Tensor>& outputs) {
    losses.push_back(squared_differences(reference, outputs));
    std::vector<at::Tensor> rows;
    for (const at::Tensor& output : outputs) rows.push_back((output.to(at::kFloat) - reference).flatten());
    const at::Tensor differences = at::stack(rows).to(at::kDouble);  // [V, bE]
    const double elements = static_cast<double>(reference.numel() / reference.size(0));
    gram += at::matmul(differences, differences.t()).to(at::kCPU) / elements;
    done += reference.size(0);
  }

  void save(const std::filesystem::path& path, const std::string& key) const {
    runtime::write_tensors(path, {{"losses", at::cat(losses, 1)}, {"gram", gram}}, {{"key", key}});
  }

  // True where `path` holds state of this very run.
  bool load(const std::filesystem::path& path, const std::string& key) {
    if (path.empty() || !std::filesystem::exists(path)) return false;
    const auto file = runtime::SafetensorsFile::open(path);
    const auto found = file->metadata().find("key");
    if (found == file->metadata().end() || found->second != key) return false;
    losses = {runtime::view_tensor(file, file->at("losses")).clone()};
    gram = runtime::view_tensor(file, file->at("gram")).clone();
    done = losses.front().size(1);
    return true;
  }
};

Estimate estimate(const at::Tensor& losses, const std::string& name) {
  Estimate e;
  const double mean = losses.mean().item<double>();
  if (!std::isfinite(mean)) {
    e.why_null = "the output without this unit is not finite";
    runtime::warn(cat(name, ": ", e.why_null, "; it gets no score and will be kept"));
    return e;
  }
  e.value = mean;
  const auto n = losses.numel();
  if (n > 1)
    e.standard_error = (losses - mean).square().sum().div(static_cast<double>(n - 1)).sqrt().item<double>() /
                       std::sqrt(static_cast<double>(n));
  return e;
}

void fill_gram(const at::Tensor& gram, Scores& scores) {
  const auto values = gram.accessor<double, 2>();
  for (std::int64_t i = 0; i < gram.size(0); ++i) {
    std::vector<std::optional<double>> row;
    for (std::int64_t j = 0; j < gram.size(1); ++j) {
      row.push_back(std::isfinite(values[i][j]) ? std::optional(values[i][j]) : std::nullopt);
    }
    scores.gram.push_back(std::move(row));
  }
}

std::int64_t choose_batch(const Program& base, const OutputLossOptions& options, std::size_t variants,
                          std::size_t element_size) {
  if (options.batch > 0) return options.batch;
  const std::int64_t each = bytes_per_variant(base, element_size) * static_cast<std::int64_t>(variants);
  return std::clamp<std::int64_t>(options.engine.memory_bytes / std::max<std::int64_t>(1, each), 1, kMostSamplesAtOnce);
}

Scores summarise(const Program& base, const std::vector<unet::Unit>& units, const Variants& variants,
                 const Accumulator& sums, unet::Shell shell) {
  Scores scores;
  scores.criterion = "output_loss";
  scores.base = base.config;
  scores.shell = shell;
  scores.units = units;
  scores.samples = sums.done;
  const at::Tensor losses = at::cat(sums.losses, 1);  // [V, N]
  for (std::size_t i = 0; i < units.size(); ++i) {
    scores.unit_scores.push_back(estimate(losses[static_cast<std::int64_t>(i)], units[i].layer));
  }
  for (std::size_t i = 0; i < variants.shells.size(); ++i) {
    const std::size_t row = units.size() + i;
    const Program& without = variants.programs[row + 1];
    scores.shells.push_back({variants.shells[i].path, variants.shells[i].units, base.params() - without.params(),
                             base.macs() - without.macs(),
                             estimate(losses[static_cast<std::int64_t>(row)], variants.shells[i].path)});
  }
  fill_gram((sums.gram + sums.gram.t()) / (2 * static_cast<double>(sums.done)), scores);  // rounding is not symmetric
  return scores;
}

}  // namespace

at::Tensor squared_differences(const at::Tensor& reference, const std::vector<at::Tensor>& outputs) {
  std::vector<at::Tensor> rows;
  const at::Tensor plain = reference.to(at::kFloat);
  for (const at::Tensor& output : outputs) {
    rows.push_back((output.to(at::kFloat) - plain).to(at::kDouble).square().flatten(1).mean(1));  // [B]
  }
  return at::stack(rows).to(at::kCPU);
}

Scores score_output_loss(const Program& base, const unet::Executor& executor, const unet::Inputs& inputs,
                         const OutputLossOptions& options, OutputLossReport* report) {
  const c10::InferenceMode inference;
  const std::vector<unet::Unit> units = unet::find_units(base, options.shell);
  const Variants variants = make_variants(base, units, options.shell);
  const Engine engine(base, executor, options.engine);
  const std::size_t element_size = inputs.sample.element_size();
  const std::int64_t batch = choose_batch(base, options, variants.programs.size(), element_size),
                     total = inputs.batch();
  const Plan plan = engine.plan(variants.programs, batch, element_size);
  if (report != nullptr)
    *report = {static_cast<double>(plan.naive_macs - plan.macs) / static_cast<double>(base.macs()), plan.macs};

  Accumulator sums(static_cast<std::int64_t>(variants.programs.size()) - 1);
  const std::string key = cat(options.key, " batch ", batch, " samples ", total);
  const bool resumed = sums.load(options.state, key);
  runtime::Progress progress(resumed ? "score (continued)" : "score", total, "samples", sums.done);
  auto saved = std::chrono::steady_clock::now();
  while (sums.done < total) {
    const std::int64_t end = std::min(total, sums.done + batch);
    std::vector<at::Tensor> outputs = engine.evaluate(plan, unet::slice(inputs, sums.done, end));
    const at::Tensor reference = outputs.front().to(at::kFloat);
    if (!at::isfinite(reference).all().item<bool>()) {
      throw runtime::non_finite_error("the model's own output is not finite on samples ", sums.done, " to ", end - 1,
                                      "; try --dtype f32");
    }
    outputs.erase(outputs.begin());
    sums.add(reference, outputs);
    progress.update(sums.done);
    const bool stop = runtime::stop_requested();
    const bool due =
        std::chrono::duration<double>(std::chrono::steady_clock::now() - saved).count() > kSecondsBetweenSaves;
    if (!options.state.empty() && sums.done < total && (stop || due)) {
      sums.save(options.state, key);
      saved = std::chrono::steady_clock::now();
    }
    if (sums.done < total) runtime::throw_if_stopped("finished samples are kept; run the same command again to go on");
  }
  progress.finish();
  return summarise(base, units, variants, sums, options.shell);
}

}  // namespace laptopdiff::pruning
