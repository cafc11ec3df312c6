// LoRA files, merged into a model's weights when it is loaded: W' = W + scale (alpha / r) B A.
//
// A is [r, in] or, for a convolution, [r, in, k, k]; B is [out, r] or [out, r, 1, 1]; without an alpha it is r.
// Source: Hu et al., "LoRA: low-rank adaptation of large language models", 2021.
#pragma once

#include <c10/core/ScalarType.h>

#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "runtime/tensors.h"
#include "unet/lora_names.h"

namespace laptopdiff::unet {

struct LoraSource {
  std::filesystem::path file;
  double scale = 1.0;
};

// "FILE" or "FILE:0.8". Throws Error(usage) for an empty file name.
LoraSource parse_lora_source(const std::string& text);

// A numbering of a model's modules: the name in a file -> the module in `weights`, or a removed one.
using ModuleNames = std::map<std::string, std::string>;

// How many of a file's tensors were merged, belong to removed layers, or to another model (a text encoder).
struct LoraUse {
  std::size_t merged = 0, removed = 0, elsewhere = 0;
  std::size_t numbering = 0;  // the one that the file was read in
};

// Merges what the files hold for `target` into `weights`, which then have the type `dtype` where they changed; sums are
// made in f32. A file is read in the first of `numberings` in which all of it fits, else in the last: a student whose
// layers are numbered anew takes LoRA that was trained on it and LoRA of its base. The result has an entry for each
// file. peft's own files (`base_model.model.`) need their adapter_config.json beside them, which has alpha.
// Throws Error(bad_input) that lists at once all tensors of a file that fit nothing, lack their pair or have another
// shape.
std::vector<LoraUse> merge_lora(const std::vector<LoraSource>& sources, LoraTarget target,
                                const std::vector<ModuleNames>& numberings, runtime::TensorMap& weights,
                                at::ScalarType dtype);

// How many of a file's tensors are for `target`.
std::size_t count_lora_tensors(const LoraSource& source, LoraTarget target);

// Says how many tensors were merged and how many belong to removed layers; warns of a file without any for the U-Net.
void report_lora(const LoraSource& source, LoraTarget target, const LoraUse& use);

}  // namespace laptopdiff::unet
