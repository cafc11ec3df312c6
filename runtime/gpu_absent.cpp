// In place of gpu.cpp in a build without CUDA.
#include <torch/types.h>

#include "runtime/gpu.h"

namespace laptopdiff::runtime {

std::int64_t peak_gpu_bytes(c10::Device) { return 0; }
bool has_gpu_graphs() { return false; }

struct GpuGraph::Recorded {};
GpuGraph::GpuGraph(c10::Device, const std::function<void()>&) { TORCH_CHECK(false, "a build without CUDA"); }
GpuGraph::~GpuGraph() = default;
GpuGraph::GpuGraph(GpuGraph&&) noexcept = default;
GpuGraph& GpuGraph::operator=(GpuGraph&&) noexcept = default;
void GpuGraph::replay() {}

}  // namespace laptopdiff::runtime
