// Whether a U-Net belongs to a pipeline: what the one takes, the other must give.
#pragma once

#include <string>

#include "diffusion/pipeline.h"
#include "unet/config.h"

namespace laptopdiff::diffusion {

// Channels of latents, widths of texts, SD XL's pooled text and sizes. `verb` begins the message.
// Throws Error(bad_input); inpainting, upscaling and learned variances, which change the channels, among it.
void check_fit(const unet::Config& unet, const Pipeline& pipeline, const std::string& verb);

// Throws Error(usage) for a class-conditional U-Net.
void check_no_classes(const unet::Config& unet, const std::string& verb);

// Whether batches of pictures and captions are all that the U-Net is conditioned on. Throws Error(usage) for a
// class-conditional one, and one that is told the guidance.
void check_batches(const unet::Config& unet, const std::string& verb);

}  // namespace laptopdiff::diffusion
