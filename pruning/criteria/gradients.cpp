#include "pruning/criteria/gradients.h"

#include <torch/csrc/autograd/autograd.h>
#include <torch/types.h>

#include "runtime/error.h"

namespace laptopdiff::pruning {
namespace {

// Only what can leave needs a gradient: the others' memory is saved.
runtime::TensorMap with_gradients(const runtime::TensorMap& weights,
                                  const std::vector<std::vector<std::string>>& rows) {
  runtime::TensorMap leaves = weights;
  for (const std::vector<std::string>& names : rows) {
    for (const std::string& name : names) leaves[name] = weights.at(name).detach().requires_grad_(true);
  }
  return leaves;
}

}  // namespace

Gradients::Gradients(const Subject& subject, OfParameter of_parameter)
    : rows_(parameters_of_rows(subject)),
      leaves_(with_gradients(subject.weights, rows_)),
      executor_(subject.base, leaves_),
      inputs_(subject.inputs),
      target_(subject.target),
      block_samples_(samples_at_once(subject)),
      of_parameter_(of_parameter) {}

at::Tensor Gradients::one_sample(std::int64_t sample) const {
  const at::Tensor output = executor_.forward(unet::slice(inputs_, sample, sample + 1)).to(at::kFloat);
  const at::Tensor target = target_.slice(0, sample, sample + 1).to(output.device(), at::kFloat);
  const at::Tensor loss = (output - target).square().mean();
  if (!at::isfinite(loss).item<bool>()) {
    throw runtime::non_finite_error("the model's own loss is not finite on sample ", sample, "; try --dtype f32");
  }
  std::vector<std::string> names;
  std::vector<at::Tensor> leaves;
  for (const auto& [name, tensor] : leaves_) {
    if (!tensor.requires_grad()) continue;
    names.push_back(name);
    leaves.push_back(tensor);
  }
  const std::vector<at::Tensor> gradients =
      torch::autograd::grad({loss}, leaves, {}, /*retain_graph=*/false, /*create_graph=*/false, /*allow_unused=*/false);
  const at::NoGradGuard no_grad;
  std::map<std::string, double> values;
  for (std::size_t i = 0; i < names.size(); ++i) {
    values[names[i]] = of_parameter_(gradients[i], leaves[i]).item<double>();
  }
  at::Tensor sums = at::zeros({static_cast<std::int64_t>(rows_.size())}, at::kDouble);
  for (std::size_t row = 0; row < rows_.size(); ++row) {
    double sum = 0;
    for (const std::string& name : rows_[row]) sum += values.at(name);
    sums[static_cast<std::int64_t>(row)] = sum;
  }
  return sums;
}

at::Tensor Gradients::values(const Block& block) {
  std::vector<at::Tensor> columns;
  for (std::int64_t sample = block.first; sample < block.last; ++sample) columns.push_back(one_sample(sample));
  return at::stack(columns, 1);  // [R, b]
}

}  // namespace laptopdiff::pruning
