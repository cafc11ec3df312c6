#include "runtime/gpu.h"

#include <ATen/cuda/CUDAGraph.h>
#include <c10/cuda/CUDACachingAllocator.h>
#include <c10/cuda/CUDAGuard.h>

namespace laptopdiff::runtime {

std::int64_t peak_gpu_bytes(c10::Device device) {
  if (!device.is_cuda()) return 0;
  const auto index = device.has_index() ? device.index() : c10::cuda::current_device();
  const auto stats = c10::cuda::CUDACachingAllocator::getDeviceStats(index);
  return stats.allocated_bytes[static_cast<std::size_t>(c10::CachingAllocator::StatType::AGGREGATE)].peak;
}

bool has_gpu_graphs() { return true; }

struct GpuGraph::Recorded {
  at::cuda::CUDAGraph graph;
};

namespace {

// A recording that is left open spoils the stream and the allocator.
void end_quietly(at::cuda::CUDAGraph& graph) {
  try {
    graph.capture_end();
  } catch (const c10::Error&) {  // what went wrong in it is what matters
  }
}

}  // namespace

GpuGraph::GpuGraph(c10::Device device, const std::function<void()>& work) : recorded_(std::make_unique<Recorded>()) {
  const c10::cuda::CUDAGuard guard(device);
  c10::cuda::getCurrentCUDAStream().synchronize();  // whoever made the inputs is done
  {
    const c10::cuda::CUDAStream aside = c10::cuda::getStreamFromPool();
    const c10::cuda::CUDAStreamGuard on_it(aside);
    work();
    aside.synchronize();
    c10::cuda::CUDACachingAllocator::emptyCache();  // nothing that is kept for later is given up during a recording
    // Of this thread alone: others may allocate meanwhile.
    recorded_->graph.capture_begin({0, 0}, cudaStreamCaptureModeThreadLocal);
    try {
      work();
    } catch (...) {
      end_quietly(recorded_->graph);
      throw;
    }
    recorded_->graph.capture_end();
    aside.synchronize();
  }
}
GpuGraph::~GpuGraph() = default;
GpuGraph::GpuGraph(GpuGraph&&) noexcept = default;
GpuGraph& GpuGraph::operator=(GpuGraph&&) noexcept = default;

void GpuGraph::replay() { recorded_->graph.replay(); }

}  // namespace laptopdiff::runtime
