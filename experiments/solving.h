// What `solve` is made of: its options, and the steps from scores to one mask, a curve, or a mask an interval.
#pragma once

#include <memory>
#include <optional>

#include "experiments/true_losses.h"
#include "pruning/budgets.h"
#include "pruning/solve.h"

namespace laptopdiff::experiments {

struct SolveOptions {
  std::string model, scores, budget, solver = "knapsack", preset, output, latency, calibration, curve, by = "width",
                                     pipeline;
  std::vector<std::string> must_keep, must_remove;
  std::vector<double> keep;
  std::int64_t verify = 0, per_round = 1, samples = 0, batch = 0, intervals = 0, latent = 0, tokens = 77;
  MemoryOption memory;
  WeightOptions weights;
  template <typename V>
  void fields(V& v) {
    v("model", model, "U-Net folder or config.json");
    v("scores", scores, "scores.json from `score`");
    v("budget", budget,
      "what is kept at most: params=0.5[,macs=0.6][,latency=0.6][,activations=0.6]; amounts such as 430M, 250ms or "
      "1.5GiB, and @PRESET, work too");
    v("solver", solver, "knapsack, gram or greedy; with --calibration also exact_greedy and verify");
    v("preset", preset,
      "a handcrafted student instead: bk-sdm-base, bk-sdm-small, bk-sdm-tiny, segmind-small, segmind-tiny; of SDXL "
      "koala-1b, koala-700m, ssd-1b, segmind-vega");
    v("must_keep", must_keep, "layers that stay, comma separated");
    v("must_remove", must_remove, "layers that go, comma separated");
    v("output", output, "spec.json to write; with --intervals a spec set");
    v("latency", latency, "latency.json from `bench layers`, for a budget of latency");
    v("latent", latent, "latent size that MACs and activations are counted at; 0: the config's");
    v("tokens", tokens, "text tokens that they are counted at");
    v("calibration", calibration, "safetensors from `calibrate`, to measure true losses on");
    v("samples", samples, "measure on the first N calibration samples; 0: all");
    v("batch", batch, "samples measured at once; 0: by memory");
    memory.fields(v);
    weights.fields(v);
    v("verify", verify,
      "measure the best masks, the solver's among them, with the work of this many on all samples, and keep the best; "
      "0: keep the solver's unmeasured, or 8 with --solver verify");
    v("per_round", per_round, "exact_greedy: layers that go before the rest is measured again");
    v("intervals", intervals, "a mask for each of so many intervals of timesteps, from scores with bins; 0: one mask");
    v("by", by, "intervals of equal width, of equal log-SNR (snr), or of equal loss");
    v("pipeline", pipeline, "pipeline folder whose noise schedule says the SNR; default: MODEL");
    v("curve", curve, "curve.json to write: the loss at every share of the budget's resource (default params)");
    v("keep", keep, "shares of the curve's points; default: all choices of the knapsack, else 0.95 to 0.1");
  }
};

// True where the options measure true losses.
bool measures_losses(const SolveOptions& options);

// Scores and budgets of one base, and what measures true losses where the solver needs it.
class Solving {
 public:
  // Reads and checks everything before anything is solved. `base_spec` says the architecture.
  Solving(const SolveOptions& options, const CommonOptions& common, const unet::Spec& base_spec,
          const unet::Program& base);

  struct Choice {
    pruning::Solution solution;
    Json made_by;
  };
  // By the solver and the budget of the options, verified where they say so.
  Choice choose(const pruning::Scores& scores);
  // The spec of a choice.
  unet::Spec spec_of(const Choice& choice) const;
  // One mask for all timesteps.
  unet::Spec one_mask();
  // One mask an interval of timesteps, each under the same budget.
  Json masks_of_intervals();
  // The curve's file.
  Json curve();

  const std::vector<pruning::KeepBudget>& budgets() const { return budgets_; }

 private:
  pruning::SearchTools tools(const pruning::Scores& scores);

  const SolveOptions& options_;
  const unet::Spec& base_spec_;
  pruning::CostModel costs_;
  pruning::Scores scores_;
  std::vector<pruning::KeepBudget> budgets_;
  std::unique_ptr<TrueLossSource> source_;  // where true losses are measured
};

// The base's times, where the options name them.
std::optional<pruning::Latency> read_latency_option(const std::string& path);

}  // namespace laptopdiff::experiments
