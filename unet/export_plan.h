// What an export will write: the config, the class that loads it, and each tensor's name, shape and origin.
//
//   native   a diffusers class's own config, layers numbered anew
//   custom   the full model's config with a list of what is gone, loaded by the class in laptopdiff_pruned_unet.py;
//            tensors keep their base names
//   dense    the full model with the removed layers' tensors zeroed: the same outputs, not smaller
// Knows no torch.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "unet/program.h"

namespace laptopdiff::unet {

enum class Form { native, custom, dense };
const char* form_name(Form form);

enum class Fill {
  copy,
  zeros,
  pick_hidden,  // conv_shortcut [I | 0]: of [hidden, skip] the hidden state
};

struct ExportTensor {
  std::string name;  // in the file
  std::vector<std::int64_t> shape;
  Fill fill = Fill::copy;
  std::string source;  // of a copy: its name in the base
};

struct ExportPlan {
  Form form = Form::native;
  std::string why;                    // one line for the user: why this form
  Json config;                        // config.json
  std::string library, class_name;    // model_index.json's entry
  std::vector<ExportTensor> tensors;  // exactly what the class that loads it expects
  std::int64_t params() const;
};

// native where there is such a config, else custom. Throws Error(usage) where diffusers' blocks cannot run what is
// left.
ExportPlan plan_diffusers(const Program& base, const Program& pruned);

// Throws Error(usage) with the reason where no zeroed full model computes what `pruned` does: a stage or sampler is
// gone, or a skip would reach another layer.
ExportPlan plan_dense(const Program& base, const Program& pruned);

// For single files: compact (native) where stable-diffusion.cpp knows the shape (sd_tiny, SSD-1B, Vega), else dense.
// Tensor names are still diffusers'. Throws Error(usage) as plan_dense, and for a UNet2DModel.
ExportPlan plan_single_file(const Program& base, const Program& pruned);

// The list in a custom form's config.json that laptopdiff_pruned_unet.py reads: [path in the base, how].
Json removed_layers(const Program& base, const Program& pruned);

// laptopdiff_pruned_unet.py, and its module name.
const char* pruned_class_source();
inline constexpr const char* kPrunedModule = "laptopdiff_pruned_unet";
// Its classes are called this and the name of diffusers'.
inline constexpr std::string_view kPrunedClass = "Pruned";

}  // namespace laptopdiff::unet
