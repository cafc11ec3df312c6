#include "diffusion/fit.h"

#include "runtime/error.h"

namespace laptopdiff::diffusion {
namespace {

using runtime::input_error;

constexpr std::int64_t kSizeNumbers = 6;  // of SD XL: original size, corner of the crop, target size

void check_channels(const unet::Config& unet, const Pipeline& pipeline, const std::string& verb) {
  if (unet.in_channels != unet.out_channels) {
    throw input_error(verb, ": the U-Net takes ", unet.in_channels, " channels and gives ", unet.out_channels,
                      "; inpainting, upscaling and learned variances are not supported");
  }
  if (pipeline.vae && (*pipeline.vae)->config().latent_channels != unet.out_channels) {
    throw input_error(verb, ": the U-Net gives ", unet.out_channels, " channels, the VAE decodes ",
                      (*pipeline.vae)->config().latent_channels);
  }
}

void check_text(const unet::Config& unet, const Pipeline& pipeline, const std::string& verb) {
  std::int64_t width = 0;
  for (const TextTower& tower : pipeline.text) width += tower.model->config().hidden_size;
  if (width != unet.context_width()) {
    throw input_error(verb, ": the U-Net attends to text of width ", unet.context_width(),
                      " (0: to none), the pipeline encodes width ", width, "; they are of different models");
  }
  if (pipeline.is_xl() != unet.text_time) {
    throw input_error(verb, ": the U-Net ", unet.text_time ? "needs" : "does not take",
                      " the pooled text and sizes of SD XL, and the pipeline has ", pipeline.text.size(),
                      " text encoder(s)");
  }
  if (!pipeline.is_xl()) return;
  const std::int64_t pooled = pipeline.text.back().model->config().projection_dim;
  const std::int64_t expected = unet.add_projection_dim - kSizeNumbers * unet.addition_time_embed_dim;
  if (pooled != expected) {
    throw input_error(verb, ": the U-Net takes a pooled text of width ", expected,
                      ", the pipeline's second text encoder gives ", pooled);
  }
}

}  // namespace

void check_fit(const unet::Config& unet, const Pipeline& pipeline, const std::string& verb) {
  check_channels(unet, pipeline, verb);
  check_text(unet, pipeline, verb);
}

void check_no_classes(const unet::Config& unet, const std::string& verb) {
  if (unet.class_embedding != unet::ClassEmbedding::none)
    throw runtime::usage_error(verb, ": the U-Net is class-conditional, and batches of pictures and captions have no ",
                               "class labels yet; `forward` and `score` take them from a tensor file");
}

void check_batches(const unet::Config& unet, const std::string& verb) {
  check_no_classes(unet, verb);
  if (unet.time_cond_proj_dim > 0)
    throw runtime::usage_error(verb,
                               ": the U-Net is told the guidance (`time_cond_proj_dim`), which batches do not have");
}

}  // namespace laptopdiff::diffusion
