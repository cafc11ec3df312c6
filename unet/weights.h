// A U-Net's weights: a map from diffusers path to tensor, read from and written to model folders.
#pragma once

#include <filesystem>
#include <map>
#include <optional>
#include <string>

#include "runtime/tensors.h"
#include "unet/spec.h"

namespace laptopdiff::unet {

using runtime::TensorMap;

// A model folder, opened: config, what was removed, and the tensors (mapped, not yet read).
struct Model {
  Spec spec;          // spec.removed is empty for a full model
  TensorMap weights;  // exactly the tensors of build_program(spec)
  // Of a student whose files number its layers anew: each tensor's name there -> its name in `weights`. Else empty.
  std::map<std::string, std::string> base_names;
  std::filesystem::path path;
};

// Reads a diffusers U-Net folder (config.json + one safetensors file or a sharded index, in a `variant` where one is
// named) or one of our student folders (the same with spec.json beside them). A pipeline folder is accepted where it
// has unet/, and a single-file checkpoint in original names.
// Throws Error(bad_input): missing, unexpected and misshapen tensors, all of them at once.
// `wanted` where the model's folder has weights of that variant; else "": a student need not come in the variants of
// the pipeline it is used in.
std::string available_variant(const std::filesystem::path& path, const std::string& wanted);

Model load_model(const std::filesystem::path& path, const std::string& variant = "");

// The config and spec alone, without weights: <folder>/config.json (+ spec.json), or a config.json itself, or what the
// header of a single-file checkpoint implies, which must then be complete.
Spec load_architecture(const std::filesystem::path& path);

// Writes config.json, spec.json (where something is removed) and diffusion_pytorch_model.safetensors into `folder`,
// which must exist.
void save_model(const std::filesystem::path& folder, const Spec& spec, const TensorMap& weights);

// The tensors of `weights` that `program` needs. Throws Error(bad_input) listing all that are missing or misshapen.
TensorMap select_weights(const Program& program, const TensorMap& weights, const std::string& where);

// Floating-point tensors as `dtype` on `device`; what already is so is shared, not copied. Pages of a mapped file that
// were converted are given back tensor by tensor, so that the two are not in memory together.
TensorMap convert(const TensorMap& weights, at::ScalarType dtype, at::Device device);

}  // namespace laptopdiff::unet
