// A model, a calibration set, and the meter over both: what audits and searches measure true losses with.
#pragma once

#include <optional>

#include "experiments/verbs.h"
#include "pruning/scores.h"
#include "pruning/solvers/search.h"
#include "pruning/true_loss.h"

namespace laptopdiff::experiments {

struct TrueLossOptions {
  std::string model, calibration;
  std::int64_t samples = 0;  // the first ones; 0: all
  std::int64_t batch = 0;
  std::int64_t memory_bytes = 0;  // for masks that run together
  WeightOptions weights;
};

class TrueLossSource {
 public:
  // Throws Error(bad_input) where the scores are of other weights, and as load_for_device and read_calibration.
  TrueLossSource(const TrueLossOptions& options, const pruning::Scores& scores, const std::string& scores_file,
                 const CommonOptions& common);
  TrueLossSource(const TrueLossSource&) = delete;
  TrueLossSource& operator=(const TrueLossSource&) = delete;

  const unet::Program& base() const { return model_.base; }
  const unet::Spec& spec() const { return model_.spec; }
  // Throws Error(bad_input) where the scores are of another base or other weights.
  void require_made_for(const pruning::Scores& scores, const std::string& file) const;
  // From here on the samples at timesteps in [first, last) alone. Throws Error(bad_input) where there are none.
  void restrict_to(int first, int last);
  std::int64_t samples() const { return inputs_.batch(); }
  pruning::LossMeter& meter() { return *meter_; }
  // Of masks over the units of `scores`, which must outlive the callback.
  pruning::TrueLosses losses(const pruning::Scores& scores);
  // {"samples", "forwards", "naive_forwards"} so far, on these samples.
  Json spent() const;

 private:
  LoadedModel model_;
  std::string calibration_;
  unet::Inputs all_, inputs_;
  unet::Executor executor_;
  pruning::MeterOptions options_;
  std::optional<pruning::LossMeter> meter_;
};

// Throws Error(bad_input) naming the first key in which the scores' base differs from the model's.
void require_same_base(const pruning::Scores& scores, const unet::Config& model, const std::string& where);

}  // namespace laptopdiff::experiments
