// A pipeline from a single-file checkpoint: text towers and VAE from its tensors, and what such a file lacks (tokenizer
// and scheduler) from a diffusers folder.
#pragma once

#include <filesystem>

#include "diffusion/pipeline.h"

namespace laptopdiff::diffusion {

// `config_folder` has tokenizer/ (for SD XL tokenizer_2/ too) and scheduler/, as every diffusers pipeline folder does;
// its weights are not needed. The sizes of towers and VAE are those of the file's tensors; heads have 64 channels.
// Throws Error(bad_input): no such parts in the file or the folder, and misfits, all of them at once.
Pipeline load_single_file(const std::filesystem::path& file, const std::filesystem::path& config_folder, Parts parts);

}  // namespace laptopdiff::diffusion
