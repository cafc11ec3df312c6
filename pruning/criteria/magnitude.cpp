#include <torch/types.h>

#include "pruning/criteria/rows.h"
#include "pruning/criteria/values.h"

namespace laptopdiff::pruning {
namespace {

class Magnitude : public WeightValues {
 public:
  explicit Magnitude(const Subject& subject) : rows_(parameters_of_rows(subject)), weights_(subject.weights) {}

 protected:
  at::Tensor values(const Block&) override {
    const c10::InferenceMode inference;
    at::Tensor values = at::zeros({static_cast<std::int64_t>(rows_.size()), 1}, at::kDouble);
    for (std::size_t row = 0; row < rows_.size(); ++row) {
      double sum = 0;
      for (const std::string& name : rows_[row]) sum += weights_.at(name).abs().sum(at::kDouble).item<double>();
      values[static_cast<std::int64_t>(row)][0] = sum;
    }
    return values;
  }

 private:
  std::vector<std::vector<std::string>> rows_;
  const runtime::TensorMap& weights_;
};

}  // namespace

Criterion magnitude_row() {
  return {"magnitude",
          "sum |w| over the parameters that leave",
          "as for blocks in Shortened LLaMA (Kim et al. 2024)",
          Needs::weights,
          "its weights are not finite",
          [](const Subject& subject) -> std::unique_ptr<Measurement> { return std::make_unique<Magnitude>(subject); }};
}

}  // namespace laptopdiff::pruning
