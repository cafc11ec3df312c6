#include "runtime/gpu.h"

#include <ATen/Context.h>
#include <ATen/cuda/CUDAGraph.h>
#include <c10/cuda/CUDACachingAllocator.h>
#include <c10/cuda/CUDAGuard.h>

#include <cstdlib>

namespace laptopdiff::runtime {

namespace {

void set_repeatable(bool on) {
  at::Context& context = at::globalContext();
  context.setDeterministicCuDNN(on);
  context.setBenchmarkCuDNN(!on);  // chooses by a time
  context.setDeterministicAlgorithms(on, /*warn_only=*/false);
  context.setDeterministicFillUninitializedMemory(false);
  context.setAllowTF32CuDNN(!on);
  context.setFloat32MatmulPrecision(on ? "highest" : "high");
}

}  // namespace

void make_gpu_repeatable() {
  // cuBLAS reads it when it is first used; a workspace a stream is what makes its sums take one order.
  constexpr int kKeepTheUsers = 0;
  ::setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8", kKeepTheUsers);
  set_repeatable(true);
}

FastGpu::FastGpu() { set_repeatable(false); }
FastGpu::~FastGpu() { set_repeatable(true); }

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

GpuGraph::GpuGraph(c10::Device device, const std::function<void()>& work) : recorded_(std::make_unique<Recorded>()) {
  const c10::cuda::CUDAGuard guard(device);
  c10::cuda::getCurrentCUDAStream().synchronize();  // whoever made the inputs is done
  {
    const c10::cuda::CUDAStream aside = c10::cuda::getStreamFromPool();
    const c10::cuda::CUDAStreamGuard on_it(aside);
    work();
    aside.synchronize();
    // Of this thread alone: others may allocate meanwhile.
    recorded_->graph.capture_begin({0, 0}, cudaStreamCaptureModeThreadLocal);
    work();
    recorded_->graph.capture_end();
    aside.synchronize();
  }
}
GpuGraph::~GpuGraph() = default;
GpuGraph::GpuGraph(GpuGraph&&) noexcept = default;
GpuGraph& GpuGraph::operator=(GpuGraph&&) noexcept = default;

void GpuGraph::replay() { recorded_->graph.replay(); }

}  // namespace laptopdiff::runtime
