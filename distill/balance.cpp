#include "distill/balance.h"

#include <torch/types.h>

#include "runtime/error.h"

namespace laptopdiff::distill {
namespace {

constexpr double kEpsilon = 1e-8;

struct Row {
  const char* name;
  // mean_square [L], norm [L] -> weights [L]
  at::Tensor (*weights)(const at::Tensor& mean_square, const at::Tensor& norm);
};
const Row kRows[] = {
    {"plain", [](const at::Tensor& ms, const at::Tensor&) { return at::ones_like(ms); }},
    {"rel_sq", [](const at::Tensor& ms, const at::Tensor&) { return 1 / (ms + kEpsilon); }},
    {"rel_norm", [](const at::Tensor& ms, const at::Tensor&) { return 1 / (ms.sqrt() + kEpsilon); }},
    {"norm_max", [](const at::Tensor&, const at::Tensor& n) { return n.max() / (n + kEpsilon); }},
    {"norm_mean", [](const at::Tensor&, const at::Tensor& n) { return n.mean() / (n + kEpsilon); }},
};

}  // namespace

std::vector<std::string> balance_names() {
  std::vector<std::string> names;
  for (const Row& row : kRows) names.emplace_back(row.name);
  return names;
}

at::Tensor balance_weights(const std::string& name, const std::vector<at::Tensor>& features) {
  const at::NoGradGuard no_grad;
  std::vector<at::Tensor> mean_squares, norms;
  for (const at::Tensor& feature : features) {
    const at::Tensor plain = feature.to(at::kFloat);
    mean_squares.push_back(plain.square().mean());
    norms.push_back(plain.norm());
  }
  for (const Row& row : kRows) {
    if (name == row.name) return row.weights(at::stack(mean_squares), at::stack(norms));
  }
  throw runtime::usage_error("unknown balance `", name, "`", runtime::did_you_mean(name, balance_names()));
}

}  // namespace laptopdiff::distill
