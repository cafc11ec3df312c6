// Forward passes on a GPU as one launch each: a pass is some seven hundred operations, and at batch 1 the processor
// takes longer to queue them than the GPU to do them.
#pragma once

#include <functional>
#include <list>
#include <mutex>
#include <optional>
#include <string>

#include "runtime/gpu.h"
#include "unet/executor.h"

namespace laptopdiff::unet {

// Keeps the graphs of a few kinds of inputs (their shapes and types). The first pass of a kind runs as it is, the second
// is recorded: what is done once is never paid for twice. A graph keeps the memory of one pass. Any thread.
class ForwardGraphs {
 public:
  using Forward = std::function<at::Tensor(const Inputs&)>;

  // What forward(inputs) gives. `forward` must always be the same function.
  at::Tensor run(const Inputs& inputs, const Forward& forward);

 private:
  struct Kind {
    std::string signature;
    Inputs inputs;      // what the graph reads
    at::Tensor output;  // what it writes
    std::optional<runtime::GpuGraph> graph;
  };
  static void record(Kind& kind, const Inputs& inputs, const Forward& forward);

  std::mutex mutex_;
  std::list<Kind> kinds_;  // last used first
};

}  // namespace laptopdiff::unet
