// `doctor`: what is installed and what is not, with what to do about it.
#include <ATen/Context.h>
#include <ATen/Parallel.h>
#include <torch/cuda.h>
#include <torch/types.h>
#include <torch/version.h>

#include <cmath>
#include <cstdio>
#include <fstream>
#include <iostream>

#include "diffusion/unicode.h"
#include "experiments/command.h"
#include "experiments/verbs.h"
#include "experiments/version.h"
#include "runtime/device_name.h"
#include "runtime/error.h"
#include "runtime/processes.h"

namespace laptopdiff::experiments {
namespace {

struct DoctorOptions {
  template <typename V>
  void fields(V&) {}
};

// GiB of memory in all and available now; null where the system does not tell.
Json memory_report() {
  std::ifstream info("/proc/meminfo");
  Json report;
  for (std::string line; std::getline(info, line);) {
    for (const auto& [key, name] : {std::pair{"MemTotal:", "total"}, {"MemAvailable:", "available"}}) {
      if (!line.starts_with(key)) continue;
      report[name] = std::round(std::stod(line.substr(std::string(key).size())) / 1048576 * 10) / 10;  // from KiB
    }
  }
  return report;
}

Json cuda_report() {
  const auto count = static_cast<int>(torch::cuda::device_count());
  Json report = {{"in_libtorch", at::globalContext().hasCUDART()}, {"devices", count}};
  for (int i = 0; i < count; ++i)
    report["names"].push_back(runtime::device_name({at::kCUDA, static_cast<at::DeviceIndex>(i)}));
  if (!at::globalContext().hasCUDART())
    report["advice"] = "this LibTorch is a CPU build; install the CUDA wheel of torch, or set Torch_DIR";
  else if (count == 0) report["advice"] = "LibTorch has CUDA but sees no device; check the driver with nvidia-smi";
  return report;
}

}  // namespace

void run_doctor(const Invocation& invocation) {
  const auto parsed = parse_command<DoctorOptions>(invocation, {});
  Json report = {{"version", kVersion},
                 {"commit", kCommit},
                 {"libtorch", TORCH_VERSION},
                 {"processor", runtime::processor_name()},
                 {"capability", at::get_cpu_capability()},
                 {"threads", at::get_num_threads()},
                 {"memory_gib", memory_report()},
                 {"cuda", cuda_report()},
                 {"onednn", at::globalContext().hasMKLDNN()},
                 {"mpi", runtime::has_mpi()},
                 {"unicode_prompts", diffusion::has_unicode()}};
  if (!diffusion::has_unicode())
    report["unicode_advice"] = "built without ICU: only ASCII prompts; install libicu-dev and build again";
  if (parsed.common.json) {
    std::cout << runtime::dump_json(report);
    return;
  }
  const auto line = [](const char* name, const std::string& value) { std::printf("%-18s %s\n", name, value.c_str()); };
  line("laptopdiff", runtime::cat(kVersion, " (", kCommit, ")"));
  line("LibTorch", TORCH_VERSION);
  line("processor", runtime::cat(runtime::processor_name(), ", ", at::get_cpu_capability(), ", ", at::get_num_threads(),
                                 " threads"));
  const Json& memory = report["memory_gib"];
  line("memory",
       memory.is_null() ? "unknown" : runtime::cat(memory["available"], " of ", memory["total"], " GiB available"));
  line("oneDNN", at::globalContext().hasMKLDNN() ? "yes" : "no: convolutions will be slow");
  line("CUDA", report["cuda"].contains("advice") ? "no: " + report["cuda"]["advice"].get<std::string>()
                                                 : runtime::cat(report["cuda"]["devices"].get<int>(), " devices"));
  line("MPI", runtime::has_mpi() ? "yes: mpirun or srun share the work of `score`"
                                 : "no: `score` is one process; install libopenmpi-dev and build again");
  line("Unicode prompts",
       diffusion::has_unicode() ? "yes (ICU)" : "no: " + report["unicode_advice"].get<std::string>());
}

}  // namespace laptopdiff::experiments
