// What criteria share that compare the outputs of the base and of its single removals on the same inputs.
#pragma once

#include <optional>
#include <vector>

#include "pruning/criteria.h"

namespace laptopdiff::pruning {

// A part is a chunk of the engine's plan. Where one chunk does not hold all variants, a part keeps nothing but its
// variants' outputs.
class VariantOutputs : public Measurement {
 public:
  explicit VariantOutputs(const Subject& subject);

  std::int64_t samples() const override { return inputs_.batch(); }
  std::int64_t block_samples() const override { return batch_; }
  std::int64_t parts() const override { return static_cast<std::int64_t>(plan_.chunks.size()); }
  runtime::TensorMap measure(const Block& block, std::int64_t part) override;
  Measured fold(const Block& block, const std::vector<runtime::TensorMap>& parts) const override;
  runtime::Json plan() const override;
  double forwards_per_sample() const override;
  double naive_forwards_per_sample() const override { return static_cast<double>(programs_.size()); }

 protected:
  // `all` [b, C, H, W] is the base's output, `without` one a row, all in f32.
  virtual Measured compare(const Block& block, const at::Tensor& all, const std::vector<at::Tensor>& without) const = 0;

 private:
  const unet::Program& base_;
  unet::Inputs inputs_;
  std::vector<unet::Program> programs_;  // the base, then every row's
  Engine engine_;
  std::int64_t batch_;
  Plan plan_;
  std::int64_t running_block_ = -1;  // whose base pass is `run_`
  BaseRun run_;
};

}  // namespace laptopdiff::pruning
