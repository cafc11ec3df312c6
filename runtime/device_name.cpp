#include "runtime/device_name.h"

#include <dlfcn.h>

#include <fstream>

namespace laptopdiff::runtime {
namespace {

// Asked of the driver, which LibTorch has loaded where there is such a device: its three calls are the same since CUDA
// 2.0, while LibTorch's own way to ask needs the CUDA Toolkit's headers.
std::string gpu_name(int index) {
  void* driver = ::dlopen("libcuda.so.1", RTLD_LAZY);
  if (driver == nullptr) return "unknown";
  const auto start = reinterpret_cast<int (*)(unsigned)>(::dlsym(driver, "cuInit"));
  const auto find = reinterpret_cast<int (*)(int*, int)>(::dlsym(driver, "cuDeviceGet"));
  const auto name_of = reinterpret_cast<int (*)(char*, int, int)>(::dlsym(driver, "cuDeviceGetName"));
  constexpr int kSuccess = 0;
  char name[256] = "";
  int device = 0;
  const bool found = start != nullptr && find != nullptr && name_of != nullptr && start(0) == kSuccess &&
                     find(&device, index) == kSuccess && name_of(name, sizeof name, device) == kSuccess;
  return found ? name : "unknown";  // the driver stays loaded: LibTorch uses it
}

}  // namespace

std::string processor_name() {
  std::ifstream info("/proc/cpuinfo");
  for (std::string line; std::getline(info, line);) {
    const std::size_t colon = line.find(": ");
    if (line.starts_with("model name") && colon != std::string::npos) return line.substr(colon + 2);
  }
  return "unknown";
}

std::string device_name(c10::Device device) {
  return device.is_cuda() ? gpu_name(device.has_index() ? device.index() : 0) : processor_name();
}

}  // namespace laptopdiff::runtime
