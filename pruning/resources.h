// What a budget can count: amounts that are sums over the steps of a program.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "pruning/latency.h"
#include "unet/spec.h"

namespace laptopdiff::pruning {

enum class Resource {
  params,
  macs,         // at the base program's geometry
  latency,      // seconds, from a table that was measured on this device
  activations,  // bytes in f32 that a training step keeps of one sample for its backward pass
};
const char* resource_name(Resource resource);
std::vector<std::string> resource_names();

// One number for a person: "1,234", "0.0123 s", "12.3 MiB".
std::string amount_text(Resource resource, double amount);

// Amounts of a base and its variants. The base must outlive it.
class CostModel {
 public:
  // Throws Error(bad_input) where the table was measured on another base.
  CostModel(const unet::Program& base, std::optional<Latency> latency = {});  // NOLINT: a base is a cost model

  const unet::Program& base() const { return base_; }
  const std::optional<Latency>& latency() const { return latency_; }
  // Throws Error(usage) for latency without a table.
  double amount(const unet::Program& variant, Resource resource) const;
  double total(Resource resource) const { return amount(base_, resource); }
  // What goes with these removals, one number a resource; never below 0, which a measured time could be.
  std::vector<double> freed(const std::vector<unet::Removal>& removed, unet::Shell shell,
                            const std::vector<Resource>& resources) const;

 private:
  const unet::Program& base_;
  std::optional<Latency> latency_;
};

}  // namespace laptopdiff::pruning
