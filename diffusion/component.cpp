#include "diffusion/component.h"

#include <torch/nn/module.h>
#include <torch/nn/modules/container/modulelist.h>
#include <torch/types.h>

#include <set>

#include "runtime/error.h"

namespace laptopdiff::diffusion {
using runtime::input_error;
using runtime::TensorMap;

namespace {

TensorMap named_state(const torch::nn::Module& module) {
  TensorMap state;
  for (const auto& item : module.named_parameters()) state[item.key()] = item.value();
  for (const auto& item : module.named_buffers()) state[item.key()] = item.value();
  return state;
}

}  // namespace

void check_module(const torch::nn::Module& module, const TensorMap& weights, const std::string& where) {
  const TensorMap state = named_state(module);
  runtime::Misfits misfits;
  for (const auto& [name, target] : state) {
    const auto found = weights.find(name);
    if (found == weights.end()) misfits.missing.push_back(name);
    else if (found->second.sizes() != target.sizes())
      misfits.misshapen.push_back(runtime::cat(name, " is ", runtime::sizes_text(found->second), ", the config says ",
                                               runtime::sizes_text(target)));
  }
  for (const auto& [name, tensor] : weights) {
    if (!state.count(name)) misfits.unexpected.push_back(name);
  }
  if (misfits.count() > 0) throw input_error(where, ": the weights do not fit the config:", misfits.text());
}

void load_module(torch::nn::Module& module, const TensorMap& weights, const std::string& where) {
  check_module(module, weights, where);
  if (const auto bad = runtime::non_finite_tensors(weights); !bad.empty())
    throw runtime::non_finite_error(where, ": ", bad.size(), " tensors hold NaN or Inf: ", runtime::listing(bad));
  const at::NoGradGuard no_grad;
  for (const auto& [name, target] : named_state(module)) {
    at::Tensor(target).copy_(weights.at(name));
    runtime::release_pages(weights.at(name));
  }
}

}  // namespace laptopdiff::diffusion
