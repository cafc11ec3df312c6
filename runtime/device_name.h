// What a device's maker calls it: times are of one device, and "cuda:0" is another one on every machine.
#pragma once

#include <c10/core/Device.h>

#include <string>

namespace laptopdiff::runtime {

// "AMD EPYC 9B14", or "unknown" where the system does not tell.
std::string processor_name();

// Of a GPU "NVIDIA H100 80GB HBM3"; of any other device the processor's name.
std::string device_name(c10::Device device);

}  // namespace laptopdiff::runtime
