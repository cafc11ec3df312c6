// What is asked of a GPU beyond tensors. A build without the CUDA Toolkit has no graphs and counts no memory.
#pragma once

#include <c10/core/Device.h>

#include <cstdint>
#include <functional>
#include <memory>

namespace laptopdiff::runtime {

// Makes what runs on GPUs from here on give the same bits again, and f32 mean f32 and not TF32: LibTorch takes such
// algorithms alone, and throws where it has none. Before the first tensor on a GPU.
void make_gpu_repeatable();

// While it lives, LibTorch's fastest algorithms run, with TF32 in f32; repeatable again after it.
class FastGpu {
 public:
  FastGpu();
  ~FastGpu();
  FastGpu(const FastGpu&) = delete;
  FastGpu& operator=(const FastGpu&) = delete;
};

// The most that tensors have taken at once on this device, in bytes; 0 on a CPU.
std::int64_t peak_gpu_bytes(c10::Device device);

bool has_gpu_graphs();

// Work recorded once and replayed as one launch. It must do the same every time, on tensors that stay where they are:
// inputs are copied into them before replay(), outputs copied out after. Nothing in it may wait for the GPU.
class GpuGraph {
 public:
  // Runs the work once, so that libraries are set up, then records it on `device`. What the recorded run allocates
  // stays allocated as long as the graph. Throws what the work throws, c10::Error where it cannot be recorded.
  GpuGraph(c10::Device device, const std::function<void()>& work);
  ~GpuGraph();
  GpuGraph(GpuGraph&&) noexcept;
  GpuGraph& operator=(GpuGraph&&) noexcept;

  // On the current stream.
  void replay();

 private:
  struct Recorded;
  std::unique_ptr<Recorded> recorded_;
};

}  // namespace laptopdiff::runtime
