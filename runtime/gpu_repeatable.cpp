// What every build needs: one without our kernels can still meet a GPU.
#include <ATen/Context.h>

#include <cstdlib>

#include "runtime/gpu.h"

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

}  // namespace laptopdiff::runtime
