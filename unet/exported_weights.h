// Reading our exports back: their weights under base names.
#pragma once

#include <map>
#include <string>

#include "runtime/tensors.h"
#include "unet/export_plan.h"
#include "unet/spec.h"

namespace laptopdiff::unet {

using runtime::TensorMap;

// What a dense export holds for a removed layer, in f32.
at::Tensor filled_tensor(const ExportTensor& tensor);

// `weights` are of the network that `config` builds, and `spec` says what was removed from its base. Where that is the
// spec's native network, tensors get their base names back; where it is the base and the weights are the full model's
// (a dense export), those of removed layers go. Anything else is left as it is. Returns what was renamed: all names, or
// none where every tensor has its base name already.
// Throws Error(bad_input) naming `where` if a tensor would go that does work.
std::map<std::string, std::string> restore_base_names(const Config& config, const Spec& spec, TensorMap& weights,
                                                      const std::string& where);

}  // namespace laptopdiff::unet
