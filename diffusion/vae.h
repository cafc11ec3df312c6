// AutoencoderKL: images <-> latents.
//
// Letters: B batch, C image channels, H W image size, c latent channels, h = H / 2^(levels - 1).
// Source: Rombach et al., "High-resolution image synthesis with latent diffusion models", 2022; names are those of
// diffusers.
#pragma once

#include <ATen/core/Tensor.h>
#include <torch/nn/module.h>
#include <torch/nn/pimpl.h>

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "diffusion/layers.h"
#include "diffusion/tiles.h"
#include "runtime/json.h"
#include "runtime/tensors.h"

namespace laptopdiff::diffusion {

// The fields of diffusers' AutoencoderKL that change the maths, with its defaults.
struct VaeConfig {
  std::int64_t in_channels = 3;
  std::int64_t out_channels = 3;
  std::vector<std::int64_t> block_out_channels = {64};
  std::int64_t layers_per_block = 1;
  std::int64_t latent_channels = 4;
  std::int64_t norm_num_groups = 32;
  double scaling_factor = 0.18215;
  std::int64_t sample_size = 32;  // of the images it was trained on, and of a tile
  bool use_quant_conv = true;
  bool use_post_quant_conv = true;
  bool mid_block_add_attention = true;

  bool operator==(const VaeConfig&) const = default;
};

// Throws Error(bad_input) naming the field that is not supported or does not fit.
VaeConfig vae_config(const runtime::Json& config, const std::string& where);

struct Moments {
  at::Tensor mean;    // [B, c, h, w]
  at::Tensor logvar;  // [B, c, h, w], clamped to [-30, 20]
};

class VaeEncoder;
class VaeDecoder;

class AutoencoderKlImpl : public torch::nn::Module {
 public:
  explicit AutoencoderKlImpl(const VaeConfig& config);
  // Images [B, C, H, W] in [-1, 1] -> unscaled moments. With tiling, images larger than sample_size (and latents larger
  // than its latent) go through in tiles: less memory, and slightly other numbers, those of diffusers' enable_tiling.
  Moments encode_moments(const at::Tensor& images, Tiling tiling = Tiling::off);
  // Unscaled latents [B, c, h, w] -> images [B, C, H, W]; the caller divides by scaling_factor() first.
  at::Tensor decode(const at::Tensor& latents, Tiling tiling = Tiling::off);
  // latent for the U-Net = scaling_factor() * sample of the moments.
  double scaling_factor() const { return config_.scaling_factor; }
  // Image side over latent side.
  std::int64_t downscale() const;
  const VaeConfig& config() const { return config_; }

 private:
  at::Tensor encode_tile(const at::Tensor& images);   // [B, 2c, h, w]
  at::Tensor decode_tile(const at::Tensor& latents);  // [B, C, H, W]

  VaeConfig config_;
  std::shared_ptr<VaeEncoder> encoder_;
  std::shared_ptr<VaeDecoder> decoder_;
  Conv2d quant_conv_ = nullptr, post_quant_conv_ = nullptr;
};
TORCH_MODULE(AutoencoderKl);

// The model with the given weights in f32; the old attention names (query, key, value, proj_attn, 1x1 convolutions as
// [C, C, 1, 1]) are read too. Throws Error(bad_input) that lists all misfits at once.
AutoencoderKl make_vae(const VaeConfig& config, const runtime::TensorMap& weights, const std::string& where);

// config.json + diffusion_pytorch_model.safetensors of a folder.
AutoencoderKl load_vae(const std::filesystem::path& folder, const std::string& variant = "");

// Throws where load_vae would for the config, names and shapes. Reads no weight.
void check_vae(const std::filesystem::path& folder, const std::string& variant = "");

}  // namespace laptopdiff::diffusion
