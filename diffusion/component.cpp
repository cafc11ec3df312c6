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

TensorMap named_state(torch::nn::Module& module) {
  TensorMap state;
  for (const auto& item : module.named_parameters()) state[item.key()] = item.value();
  for (const auto& item : module.named_buffers()) state[item.key()] = item.value();
  return state;
}

void append_list(std::string& text, const char* title, const std::vector<std::string>& names) {
  if (!names.empty()) text += runtime::cat("\n  ", title, " (", names.size(), "): ", runtime::join(names));
}

}  // namespace

void load_module(torch::nn::Module& module, const TensorMap& weights, const std::string& where) {
  const TensorMap state = named_state(module);
  std::vector<std::string> missing, unexpected, misshapen;
  for (const auto& [name, target] : state) {
    const auto found = weights.find(name);
    if (found == weights.end()) missing.push_back(name);
    else if (found->second.sizes() != target.sizes())
      misshapen.push_back(runtime::cat(name, " is ", runtime::sizes_text(found->second), ", the config says ",
                                       runtime::sizes_text(target)));
  }
  for (const auto& [name, tensor] : weights) {
    if (!state.count(name)) unexpected.push_back(name);
  }
  std::string problems;
  append_list(problems, "missing", missing);
  append_list(problems, "unexpected", unexpected);
  append_list(problems, "wrong shape", misshapen);
  if (!problems.empty()) throw input_error(where, ": the weights do not fit the config:", problems);
  const at::NoGradGuard no_grad;
  for (const auto& [name, target] : state) at::Tensor(target).copy_(weights.at(name));
}

}  // namespace laptopdiff::diffusion
