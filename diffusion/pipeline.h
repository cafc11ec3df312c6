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

// Which parts to load; the text encoder alone is enough to encode captions. config_only reads no weight and warns of
// nothing, for a look before the work; its scheduler_config is as stored.
enum class Parts { all, text_only, config_only };

// One text tower with its tokenizer.
struct TextTower {
  Tokenizer tokenizer;
  ClipTextModel model;
};

// A tower whose tokenizer (in the folder `tokenizer`) must fit the model, which errors call `encoder`.
// Throws Error(bad_input).
TextTower make_tower(const std::filesystem::path& tokenizer, ClipTextModel model, const std::string& encoder);

// Contexts of N texts. `pooled` only for the XL kind.
struct EncodedPrompts {
  at::Tensor context;  // [N, T, D]
  at::Tensor pooled;   // [N, P]
};

// Which files of a pipeline are read.
struct PipelineFiles {
  // For a single-file checkpoint: a folder with the tokenizer and scheduler that it lacks; empty: the one it lies in.
  std::filesystem::path config_folder;
  std::string variant;  // of weights ("fp16"); a part without it is read in full precision
};

// diffusers' Stable Diffusion 1 and 2 pipelines overrule two scheduler settings of outdated folders, those that leave
// them to the class's default among them: x0 is never clipped, and grids with leading spacing end at timestep 1.
// Warns where a setting said otherwise.
void overrule_outdated(runtime::Json& scheduler, const std::string& where);

struct Pipeline {
  std::filesystem::path folder;
  std::string class_name;  // "StableDiffusionPipeline", "StableDiffusionXLPipeline", "DDPMPipeline", ...
  std::filesystem::path unet_folder;
  std::string unet_class;  // "UNet2DConditionModel" or "UNet2DModel"
  runtime::Json scheduler_config;
  std::vector<TextTower> text;       // none: unconditional; one: SD 1/2; two: SD XL
  std::optional<AutoencoderKl> vae;  // none for pixel models
  Tiling vae_tiling = Tiling::off;
  bool zeros_for_empty_prompt = false;

  // Reads a folder with model_index.json and its parts, or a single-file checkpoint. Throws Error(bad_input) naming
  // components that are missing, of a class that is not supported, or unknown.
  static Pipeline load(const std::filesystem::path& folder, Parts parts = Parts::all, const PipelineFiles& files = {});

  bool is_xl() const { return text.size() == 2; }

  // What the U-Net is conditioned on: SD 1/2 the last hidden state after the final norm; XL the penultimate hidden
  // states of both towers side by side, with the second one's pooled projection. `clip_skip`, at most
  // max_clip_skip(), takes the state that many layers earlier; the pooled projection stays.
  EncodedPrompts encode_prompts(const std::vector<std::string>& texts, std::int64_t clip_skip = 0);
  std::int64_t max_clip_skip() const;
  // The unconditional half of guidance, [1, T, D]: the encoded empty string, or zeros where the pipeline says so.
  EncodedPrompts encode_unconditional();

  // Pixels a side for each side of a sample: the VAE's downscale(), or 1 for pixel models.
  std::int64_t pixels_per_sample() const { return vae ? (*vae)->downscale() : 1; }

  // Scaled latents [B, c, h, w] -> images U8 [B, H, W, 3]; without a VAE the samples themselves are the images. The VAE
  // computes in f32 whatever the U-Net does: SDXL's overflows in half precision (`force_upcast`).
  // Throws Error(non_finite) where the VAE makes NaN or Inf.
  at::Tensor to_images(const at::Tensor& samples);
  // U8 images [B, H, W, 3] -> moments of the unscaled latents.
  Moments encode_images(const at::Tensor& images);

  void to(c10::Device device);
  c10::Device device() const;
};

}  // namespace laptopdiff::diffusion
