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

// Keeps the graphs of a few kinds of passes: the steps, and the inputs' shapes and types. The first pass of a kind runs
// as it is, the second is recorded: what is done once is never paid for twice. A graph keeps the memory of one pass.
// What cannot be recorded runs as it is, with a warning. Passes of several threads wait for each other, on one stream.
class ForwardGraphs {
 public:
  using Forward = std::function<at::Tensor(const Inputs&)>;

  // What forward(inputs) gives; `steps` says which function it is.
  at::Tensor run(const std::string& steps, const Inputs& inputs, const Forward& forward);

 private:
  struct Kind {
    std::string signature;
    Inputs inputs;      // what the graph reads
    at::Tensor output;  // what it writes
    std::optional<runtime::GpuGraph> graph;
    bool refused = false;  // by LibTorch, once
  };
  static void record(Kind& kind, const Inputs& inputs, const Forward& forward);

  std::mutex mutex_;
  std::list<Kind> kinds_;  // last used first
};

}  // namespace laptopdiff::unet
