#include "diffusion/vae.h"

#include <torch/nn/module.h>
#include <torch/nn/modules/container/modulelist.h>
#include <torch/types.h>

#include "diffusion/component.h"
#include "runtime/error.h"
#include "runtime/weight_files.h"
#include "unet/original_names.h"

namespace laptopdiff::diffusion {
using runtime::input_error;
using runtime::Json;
using runtime::TensorMap;

namespace {

constexpr double kNormEps = 1e-6;

// Registers `list` with children 0, 1, ... under `name`.
template <typename Holder>
void register_list(torch::nn::Module& owner, const char* name, const std::vector<Holder>& list) {
  torch::nn::ModuleList children;
  for (const auto& child : list) children->push_back(child);
  owner.register_module(name, children);
}

// norm, silu, conv, twice, and the input (through a 1x1 convolution where the channels change) added.
class VaeResnetImpl : public torch::nn::Module {
 public:
  VaeResnetImpl(std::int64_t in, std::int64_t out, std::int64_t groups)
      : norm1_(register_module("norm1", GroupNorm(groups, in, kNormEps))),
        norm2_(register_module("norm2", GroupNorm(groups, out, kNormEps))),
        conv1_(register_module("conv1", Conv2d(in, out))),
        conv2_(register_module("conv2", Conv2d(out, out))) {
    if (in != out) conv_shortcut_ = register_module("conv_shortcut", Conv2d(in, out, ConvShape{1, 1, 0}));
  }
  at::Tensor forward(const at::Tensor& x) {
    const at::Tensor inner = conv1_(at::silu(norm1_(x)));
    const at::Tensor branch = conv2_(at::silu(norm2_(inner)));
    return (conv_shortcut_ ? conv_shortcut_(x) : x) + branch;
  }

 private:
  GroupNorm norm1_, norm2_;
  Conv2d conv1_, conv2_, conv_shortcut_ = nullptr;
};
TORCH_MODULE(VaeResnet);

// Self-attention over all pixels with one head.
class VaeAttentionImpl : public torch::nn::Module {
 public:
  VaeAttentionImpl(std::int64_t channels, std::int64_t groups)
      : group_norm_(register_module("group_norm", GroupNorm(groups, channels, kNormEps))),
        to_q_(register_module("to_q", Linear(channels, channels))),
        to_k_(register_module("to_k", Linear(channels, channels))),
        to_v_(register_module("to_v", Linear(channels, channels))),
        to_out_(channels, channels) {
    register_list<Linear>(*this, "to_out", {to_out_});
  }
  at::Tensor forward(const at::Tensor& x) {                                            // [B, C, h, w]
    const at::Tensor pixels = group_norm_(x).flatten(2).transpose(1, 2).unsqueeze(1);  // [B, 1, hw, C]
    const at::Tensor mixed = at::scaled_dot_product_attention(to_q_(pixels), to_k_(pixels), to_v_(pixels));
    return x + to_out_(mixed).squeeze(1).transpose(1, 2).reshape(x.sizes());
  }

 private:
  GroupNorm group_norm_;
  Linear to_q_, to_k_, to_v_, to_out_;
};
TORCH_MODULE(VaeAttention);

class VaeMidBlockImpl : public torch::nn::Module {
 public:
  VaeMidBlockImpl(std::int64_t channels, const VaeConfig& config) {
    for (int i = 0; i < 2; ++i) resnets_.emplace_back(channels, channels, config.norm_num_groups);
    register_list(*this, "resnets", resnets_);
    if (!config.mid_block_add_attention) return;
    attention_ = VaeAttention(channels, config.norm_num_groups);
    register_list<VaeAttention>(*this, "attentions", {attention_});
  }
  at::Tensor forward(const at::Tensor& x) {
    at::Tensor y = resnets_[0](x);
    if (attention_) y = attention_(y);
    return resnets_[1](y);
  }

 private:
  std::vector<VaeResnet> resnets_;
  VaeAttention attention_ = nullptr;
};
TORCH_MODULE(VaeMidBlock);

enum class Resample { none, down, up };

// The convolution after a change of size; its parameters are named `conv`.
class VaeResampleImpl : public torch::nn::Module {
 public:
  VaeResampleImpl(std::int64_t channels, Resample resample)
      : resample_(resample),
        conv_(register_module(
            "conv", Conv2d(channels, channels, resample == Resample::down ? ConvShape{3, 2, 0} : ConvShape{3, 1, 1}))) {
  }
  at::Tensor forward(const at::Tensor& x) {
    // Down-sampling pads the right and bottom only.
    if (resample_ == Resample::down) return conv_(at::constant_pad_nd(x, {0, 1, 0, 1}));
    return conv_(at::upsample_nearest2d(x, {2 * x.size(2), 2 * x.size(3)}));
  }

 private:
  Resample resample_;
  Conv2d conv_;
};
TORCH_MODULE(VaeResample);

class VaeStageImpl : public torch::nn::Module {
 public:
  VaeStageImpl(std::int64_t in, std::int64_t out, std::int64_t layers, std::int64_t groups, Resample resample) {
    for (std::int64_t i = 0; i < layers; ++i) resnets_.emplace_back(i == 0 ? in : out, out, groups);
    register_list(*this, "resnets", resnets_);
    if (resample == Resample::none) return;
    resample_ = VaeResample(out, resample);
    register_list<VaeResample>(*this, resample == Resample::down ? "downsamplers" : "upsamplers", {resample_});
  }
  at::Tensor forward(const at::Tensor& x) {
    at::Tensor y = x;
    for (auto& resnet : resnets_) y = resnet(y);
    return resample_ ? resample_(y) : y;
  }

 private:
  std::vector<VaeResnet> resnets_;
  VaeResample resample_ = nullptr;
};
TORCH_MODULE(VaeStage);

}  // namespace

class VaeEncoder : public torch::nn::Module {
 public:
  explicit VaeEncoder(const VaeConfig& c) {
    const auto& widths = c.block_out_channels;
    conv_in_ = register_module("conv_in", Conv2d(c.in_channels, widths.front()));
    for (std::size_t i = 0; i < widths.size(); ++i) {
      const auto resample = i + 1 < widths.size() ? Resample::down : Resample::none;
      stages_.emplace_back(widths[i == 0 ? 0 : i - 1], widths[i], c.layers_per_block, c.norm_num_groups, resample);
    }
    register_list(*this, "down_blocks", stages_);
    mid_block_ = register_module("mid_block", VaeMidBlock(widths.back(), c));
    norm_out_ = register_module("conv_norm_out", GroupNorm(c.norm_num_groups, widths.back(), kNormEps));
    conv_out_ = register_module("conv_out", Conv2d(widths.back(), 2 * c.latent_channels));
  }
  at::Tensor forward(const at::Tensor& images) {
    at::Tensor x = conv_in_(images);
    for (auto& stage : stages_) x = stage(x);
    return conv_out_(at::silu(norm_out_(mid_block_(x))));  // [B, 2c, h, w]
  }

 private:
  std::vector<VaeStage> stages_;
  Conv2d conv_in_ = nullptr, conv_out_ = nullptr;
  VaeMidBlock mid_block_ = nullptr;
  GroupNorm norm_out_ = nullptr;
};

class VaeDecoder : public torch::nn::Module {
 public:
  explicit VaeDecoder(const VaeConfig& c) {
    const std::vector<std::int64_t> widths(c.block_out_channels.rbegin(), c.block_out_channels.rend());
    conv_in_ = register_module("conv_in", Conv2d(c.latent_channels, widths.front()));
    mid_block_ = register_module("mid_block", VaeMidBlock(widths.front(), c));
    for (std::size_t i = 0; i < widths.size(); ++i) {
      const auto resample = i + 1 < widths.size() ? Resample::up : Resample::none;
      stages_.emplace_back(widths[i == 0 ? 0 : i - 1], widths[i], c.layers_per_block + 1, c.norm_num_groups, resample);
    }
    register_list(*this, "up_blocks", stages_);
    norm_out_ = register_module("conv_norm_out", GroupNorm(c.norm_num_groups, widths.back(), kNormEps));
    conv_out_ = register_module("conv_out", Conv2d(widths.back(), c.out_channels));
  }
  at::Tensor forward(const at::Tensor& latents) {
    at::Tensor x = mid_block_(conv_in_(latents));
    for (auto& stage : stages_) x = stage(x);
    return conv_out_(at::silu(norm_out_(x)));  // [B, C, H, W]
  }

 private:
  std::vector<VaeStage> stages_;
  Conv2d conv_in_ = nullptr, conv_out_ = nullptr;
  VaeMidBlock mid_block_ = nullptr;
  GroupNorm norm_out_ = nullptr;
};

namespace {

// Values that diffusers accepts here but that this model does not compute.
void refuse_other_maths(runtime::ObjectReader& in) {
  for (const char* key : {"shift_factor", "latents_mean", "latents_std"}) {
    if (!in.has(key)) continue;
    const Json& value = in.raw(key);
    if (!value.is_number() || value.get<double>() != 0) throw input_error(in.where(), ": `", key, "` is not supported");
  }
  const auto activation = in.get<std::string>("act_fn", "silu");
  if (activation != "silu" && activation != "swish") {
    throw input_error(in.where(), ": `act_fn` \"", activation, "\" is not supported; expected silu");
  }
}

void check_block_types(runtime::ObjectReader& in, const char* key, const std::string& expected, std::size_t count) {
  const auto types = in.get<std::vector<std::string>>(key, std::vector<std::string>(1, expected));
  for (const auto& type : types) {
    if (type != expected)
      throw input_error(in.where(), ": `", key, "`: \"", type, "\" is not supported; expected ", expected);
  }
  if (types.size() != count) {
    throw input_error(in.where(), ": `", key, "` has ", types.size(), " entries, `block_out_channels` has ", count);
  }
}

void check_widths(const VaeConfig& c, const std::string& where) {
  const auto check = [&](const char* key, std::int64_t value, std::int64_t highest) {
    if (value < 1 || value > highest) {
      throw input_error(where, ": `", key, "` is ", value, ", expected 1 to ", highest);
    }
  };
  check("in_channels", c.in_channels, 1 << 10);
  check("out_channels", c.out_channels, 1 << 10);
  check("latent_channels", c.latent_channels, 1 << 10);
  check("layers_per_block", c.layers_per_block, 1 << 10);
  check("norm_num_groups", c.norm_num_groups, 1 << 16);
  check("number of block_out_channels", static_cast<std::int64_t>(c.block_out_channels.size()), 16);
  for (const auto width : c.block_out_channels) {
    check("block_out_channels", width, 1 << 16);
    if (width % c.norm_num_groups != 0) {
      throw input_error(where, ": `block_out_channels` ", width, " is not a multiple of `norm_num_groups` ",
                        c.norm_num_groups);
    }
  }
  if (!(c.scaling_factor > 0)) throw input_error(where, ": `scaling_factor` must be above 0");
}

// A side, or [height, width], of which diffusers tiles by the height.
std::int64_t read_sample_size(runtime::ObjectReader& in, std::int64_t fallback) {
  if (!in.has("sample_size") || !in.raw("sample_size").is_array()) return in.get("sample_size", fallback);
  const auto sides = in.get<std::vector<std::int64_t>>("sample_size", {});
  return sides.empty() ? fallback : sides.front();
}

bool exceeds(const at::Tensor& image, std::int64_t side) { return image.size(2) > side || image.size(3) > side; }

// Attention weights of files from before the names were unified; some hold them as 1x1 convolutions.
TensorMap with_current_names(const TensorMap& weights, const std::string& where) {
  TensorMap out;
  for (const auto& [name, tensor] : weights) {
    const std::string current = unet::current_attention_name(name);
    const bool is_projection =
        current.find(".attentions.") != std::string::npos && current.find(".to_") != std::string::npos;
    const bool is_convolution = tensor.dim() == 4 && tensor.size(2) == 1 && tensor.size(3) == 1;
    if (!out.emplace(current, is_projection && is_convolution ? tensor.flatten(1) : tensor).second)
      throw input_error(where, ": holds ", name, " and ", current, ", which are one tensor");
  }
  return out;
}

}  // namespace

VaeConfig vae_config(const Json& config, const std::string& where) {
  runtime::ObjectReader in(config, where);
  VaeConfig c;
  const auto class_name = in.get<std::string>("_class_name", "AutoencoderKL");
  if (class_name != "AutoencoderKL") {
    throw input_error(where, ": `_class_name` ", class_name, " is not supported; expected AutoencoderKL");
  }
  c.in_channels = in.get("in_channels", c.in_channels);
  c.out_channels = in.get("out_channels", c.out_channels);
  c.block_out_channels = in.get("block_out_channels", c.block_out_channels);
  c.layers_per_block = in.get("layers_per_block", c.layers_per_block);
  c.latent_channels = in.get("latent_channels", c.latent_channels);
  c.norm_num_groups = in.get("norm_num_groups", c.norm_num_groups);
  c.scaling_factor = in.get("scaling_factor", c.scaling_factor);
  c.sample_size = read_sample_size(in, c.sample_size);
  c.use_quant_conv = in.get("use_quant_conv", c.use_quant_conv);
  c.use_post_quant_conv = in.get("use_post_quant_conv", c.use_post_quant_conv);
  c.mid_block_add_attention = in.get("mid_block_add_attention", c.mid_block_add_attention);
  refuse_other_maths(in);
  check_block_types(in, "down_block_types", "DownEncoderBlock2D", c.block_out_channels.size());
  check_block_types(in, "up_block_types", "UpDecoderBlock2D", c.block_out_channels.size());
  check_widths(c, where);
  return c;
}

AutoencoderKlImpl::AutoencoderKlImpl(const VaeConfig& config)
    : config_(config),
      encoder_(register_module("encoder", std::make_shared<VaeEncoder>(config))),
      decoder_(register_module("decoder", std::make_shared<VaeDecoder>(config))) {
  const std::int64_t c = config.latent_channels;
  if (config.use_quant_conv) quant_conv_ = register_module("quant_conv", Conv2d(2 * c, 2 * c, ConvShape{1, 1, 0}));
  if (config.use_post_quant_conv)
    post_quant_conv_ = register_module("post_quant_conv", Conv2d(c, c, ConvShape{1, 1, 0}));
}

at::Tensor AutoencoderKlImpl::encode_tile(const at::Tensor& images) {
  const at::Tensor both = encoder_->forward(images);
  return quant_conv_ ? quant_conv_(both) : both;
}

at::Tensor AutoencoderKlImpl::decode_tile(const at::Tensor& latents) {
  return decoder_->forward(post_quant_conv_ ? post_quant_conv_(latents) : latents);
}

Moments AutoencoderKlImpl::encode_moments(const at::Tensor& images, Tiling tiling) {
  const TileShape tile{config_.sample_size, config_.sample_size / downscale()};
  const bool tiled = tiling == Tiling::on && exceeds(images, tile.in);
  const at::Tensor both = tiled ? run_tiled(images, tile, [this](const at::Tensor& part) { return encode_tile(part); })
                                : encode_tile(images);
  const auto halves = both.chunk(2, 1);
  return {halves[0], halves[1].clamp(-30.0, 20.0)};
}

at::Tensor AutoencoderKlImpl::decode(const at::Tensor& latents, Tiling tiling) {
  const TileShape tile{config_.sample_size / downscale(), config_.sample_size};
  if (tiling == Tiling::off || !exceeds(latents, tile.in)) return decode_tile(latents);
  return run_tiled(latents, tile, [this](const at::Tensor& part) { return decode_tile(part); });
}

std::int64_t AutoencoderKlImpl::downscale() const { return std::int64_t{1} << (config_.block_out_channels.size() - 1); }

namespace {

constexpr const char* kStem = "diffusion_pytorch_model";

VaeConfig config_of(const std::filesystem::path& folder) {
  const auto path = folder / "config.json";
  return vae_config(runtime::read_json(path), path.string());
}

}  // namespace

AutoencoderKl make_vae(const VaeConfig& config, const TensorMap& weights, const std::string& where) {
  AutoencoderKl vae(config);
  load_module(*vae, with_current_names(weights, where), where);
  vae->eval();
  for (auto& parameter : vae->parameters()) parameter.set_requires_grad(false);
  return vae;
}

AutoencoderKl load_vae(const std::filesystem::path& folder, const std::string& variant) {
  return make_vae(config_of(folder), runtime::read_preferred_weight_files(folder, kStem, variant), folder.string());
}

void check_vae(const std::filesystem::path& folder, const std::string& variant) {
  const TensorMap weights = runtime::read_preferred_weight_files(folder, kStem, variant);
  check_module(*AutoencoderKl(config_of(folder)), with_current_names(weights, folder.string()), folder.string());
}

}  // namespace laptopdiff::diffusion
