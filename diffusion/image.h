// Images in and out: PNG files and the step from decoded values to bytes.
#pragma once

#include <ATen/core/Tensor.h>

#include <filesystem>

#include "diffusion/png.h"

namespace laptopdiff::diffusion {

// U8 [H, W, C] of a PNG file, by decode_png(). Throws Error(bad_input) as that does, and for unreadable files.
at::Tensor read_png(const std::filesystem::path& path);

// Writes U8 [H, W, 3] or [H, W, 1], whole or not at all. Throws Error(resources) where it cannot be written.
void write_png(const std::filesystem::path& path, const at::Tensor& image);

// Decoded values [N, C, H, W] in about [-1, 1] -> U8 [N, H, W, C]: round(255 clamp(x/2 + 0.5, 0, 1)).
at::Tensor to_u8(const at::Tensor& decoded);

// U8 [H, W, C] or [N, H, W, C] -> f32 in [-1, 1], channels first.
at::Tensor from_u8(const at::Tensor& images);

}  // namespace laptopdiff::diffusion
