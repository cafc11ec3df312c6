#include "unet/forward_graphs.h"

#include <torch/types.h>

#include <algorithm>

#include "runtime/error.h"
#include "runtime/progress.h"

namespace laptopdiff::unet {
namespace {

constexpr std::size_t kMostKinds = 4;

std::string signature_of(const std::string& steps, const Inputs& inputs) {
  std::string text = steps;
  for (const auto& [name, tensor] : inputs_map(inputs))
    text += runtime::cat(name, tensor.sizes(), tensor.scalar_type(), tensor.device().str(), " ");
  return text;
}

}  // namespace

at::Tensor ForwardGraphs::run(const std::string& steps, const Inputs& inputs, const Forward& forward) {
  const c10::InferenceMode inference;
  const std::string signature = signature_of(steps, inputs);
  const std::lock_guard lock(mutex_);
  const auto known =
      std::find_if(kinds_.begin(), kinds_.end(), [&](const Kind& kind) { return kind.signature == signature; });
  if (known == kinds_.end()) {
    kinds_.push_front({signature, {}, {}, {}});
    if (kinds_.size() > kMostKinds) kinds_.pop_back();
    return forward(inputs);
  }
  kinds_.splice(kinds_.begin(), kinds_, known);
  Kind& kind = kinds_.front();
  if (!kind.graph && !kind.refused) record(kind, inputs, forward);
  if (kind.refused) return forward(inputs);
  const TensorMap given = inputs_map(inputs);
  for (const auto& [name, tensor] : inputs_map(kind.inputs)) tensor.copy_(given.at(name));
  kind.graph->replay();
  return kind.output.clone();
}

void ForwardGraphs::record(Kind& kind, const Inputs& inputs, const Forward& forward) {
  kind.inputs = clone(inputs);
  try {
    kind.graph.emplace(kind.inputs.sample.device(), [&] { kind.output = forward(kind.inputs); });
  } catch (const c10::Error& error) {
    kind = {kind.signature, {}, {}, {}, true};
    runtime::warn(runtime::cat("a forward pass cannot be recorded as a CUDA graph and is slower: ",
                               error.what_without_backtrace()));
  }
}

}  // namespace laptopdiff::unet
