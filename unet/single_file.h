// The U-Net of a single-file checkpoint: its tensors under diffusers names, and the config.json that they imply.
//
// Such a file says nothing about its architecture; everything but the number of heads is in the tensors' shapes. Heads
// go by family: SD 1 has 8 everywhere, SD 2 and XL have heads of 64 channels. Knows no torch.
#pragma once

#include <filesystem>
#include <map>
#include <string>

#include "runtime/json.h"
#include "runtime/safetensors.h"

namespace laptopdiff::unet {

// The name of our own single-file exports, beside which spec.json says what was removed.
inline constexpr const char* kSingleFileName = "model.safetensors";

// The spec.json beside a file of that name; empty where there is none.
std::filesystem::path spec_beside(const std::filesystem::path& file);

// The file in a folder that a single-file export made; any other path itself.
std::filesystem::path single_file_of(const std::filesystem::path& path);

// True for a path that is a file and not a config: a checkpoint in one file, or at least meant as one.
bool is_single_file(const std::filesystem::path& path);

// Opens the checkpoint. Throws Error(bad_input): pickled files with the way out, and what SafetensorsFile refuses.
std::shared_ptr<const runtime::SafetensorsFile> open_single_file(const std::filesystem::path& path);

// True where the file is a U-Net alone, in original names without the prefix.
bool is_bare_unet(const runtime::SafetensorsFile& file);

using TensorViews = std::map<std::string, runtime::TensorView>;

// The U-Net's tensors under diffusers names: all below `model.diffusion_model.`, or the whole file where it is a U-Net
// alone. Throws Error(bad_input) where there is no U-Net in original names, listing names that have no place in one.
TensorViews single_file_unet(const runtime::SafetensorsFile& file);

// The config.json of the U-Net with these tensors. Throws Error(bad_input) where no config says these shapes.
runtime::Json config_from_tensors(const TensorViews& tensors, const std::string& where);

}  // namespace laptopdiff::unet
