// The parts of a diffusers pipeline beside its U-Net, copied for an export. Knows no torch.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "runtime/json.h"

namespace laptopdiff::unet {

// The components that model_index.json names and that are there ([null, null] is an absent one), without `unet`.
// Throws Error(bad_input): no index, an entry that is no pair of strings, or a component's name that is not a folder's
// or that of a file which an export writes beside them.
std::vector<std::string> pipeline_components(const std::filesystem::path& pipeline);

// Copies the components into `to`, with `unet` in model_index.json standing for `library`, `class_name`. Weights that
// are there only as a variant, or in `variant` where one is named, lose it in their names, so that the copy loads
// without one. A custom pipeline's file comes along.
// Throws Error(bad_input) where a source is missing or does not read: configs, the headers of weights, a model without
// weights, a folder that is a link; Error(resources).
void copy_pipeline(const std::filesystem::path& from, const std::filesystem::path& to, const std::string& library,
                   const std::string& class_name, const std::string& variant);

}  // namespace laptopdiff::unet
