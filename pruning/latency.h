// latency.json: how long each step of a base takes on one device, as a value. Format `laptopdiff.latency/1`. Knows no
// torch.
#pragma once

#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "unet/program.h"

namespace laptopdiff::pruning {

struct Latency {
  unet::Config base;
  // What was measured: seconds of one pass over `batch` samples.
  std::string device, dtype;  // cpu, cuda:0, ...; f32, bf16, f16
  std::string device_name;    // as its maker calls it; empty where the file does not say
  int threads = 0;
  std::int64_t batch = 1, repeats = 0;
  unet::Geometry geometry;
  std::vector<double> steps;        // by base position: the median of the repeats
  std::vector<double> least;        // the fastest of them; empty where the file does not say
  std::map<int, double> shortcuts;  // base position -> what a bypassed layer leaves behind (unet::bypassed_layer)
  double forward = 0;               // the whole forward, timed as one
  runtime::Json made_by;
};

// Steps that weigh (1 % of all or more) and whose median is more than twice their fastest repeat: what else the machine
// did decides their times. Base positions.
std::vector<int> unsteady_steps(const Latency& latency);

// "NVIDIA H100 80GB HBM3 (cuda:0)", or the device alone.
std::string device_text(const Latency& latency);

// What bypassing each unit, and each Transformer2DModel of several blocks, saves is written beside the steps for
// people; shells are dropped there.
runtime::Json latency_json(const Latency& latency);

// Reads and checks against the steps of its own base. Throws Error(bad_input).
Latency read_latency(const std::filesystem::path& path);

}  // namespace laptopdiff::pruning
