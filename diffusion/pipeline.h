// A diffusers pipeline folder, without its U-Net: everything that surrounds the network.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/Device.h>

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "diffusion/scheduler.h"
#include "diffusion/text_encoder.h"
#include "diffusion/tokenizer.h"
#include "diffusion/vae.h"
#include "runtime/json.h"

namespace laptopdiff::diffusion {

// Which parts to load; the text encoder alone is enough to encode captions.
enum class Parts { all, text_only, config_only };

// One text tower with its tokenizer.
struct TextTower {
  Tokenizer tokenizer;
  ClipTextModel model;
};

// Contexts of N texts. `pooled` only for the XL kind.
struct EncodedPrompts {
  at::Tensor context;  // [N, T, D]
  at::Tensor pooled;   // [N, P]
};

struct Pipeline {
  std::filesystem::path folder;
  std::string class_name;  // "StableDiffusionPipeline", "StableDiffusionXLPipeline", "DDPMPipeline", ...
  std::filesystem::path unet_folder;
  std::string unet_class;  // "UNet2DConditionModel" or "UNet2DModel"
  runtime::Json scheduler_config;
  std::vector<TextTower> text;       // none: unconditional; one: SD 1/2; two: SD XL
  std::optional<AutoencoderKl> vae;  // none for pixel models
  bool zeros_for_empty_prompt = false;

  // Reads model_index.json and the parts. Throws Error(bad_input) naming components that are missing or of a class
  // that is not supported.
  static Pipeline load(const std::filesystem::path& folder, Parts parts = Parts::all);

  bool is_xl() const { return text.size() == 2; }

  // What the U-Net is conditioned on: SD 1/2 the last hidden state after the final norm; XL the penultimate hidden
  // states of both towers side by side, with the second one's pooled projection.
  EncodedPrompts encode_prompts(const std::vector<std::string>& texts);
  // The unconditional half of guidance, [1, T, D]: the encoded empty string, or zeros where the pipeline says so.
  EncodedPrompts encode_unconditional();

  // Scaled latents [B, c, h, w] -> images U8 [B, H, W, 3]; without a VAE the samples themselves are the images.
  at::Tensor to_images(const at::Tensor& samples);
  // U8 images [B, H, W, 3] -> moments of the unscaled latents.
  Moments encode_images(const at::Tensor& images);

  void to(c10::Device device);
  c10::Device device() const;
};

}  // namespace laptopdiff::diffusion
