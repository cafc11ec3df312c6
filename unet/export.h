// Writes a pruned U-Net, alone or in its pipeline, in a form that other tools load.
//
// A folder appears whole or not at all and holds a model card (README.md), spec.json and SHA256SUMS beside the model.
// Tensors are streamed from the mapped source: no second copy of the weights is held.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/ScalarType.h>

#include <filesystem>
#include <map>
#include <optional>
#include <string>

#include "runtime/file.h"
#include "unet/export_plan.h"
#include "unet/spec.h"
#include "unet/weights.h"

namespace laptopdiff::unet {

enum class ExportFormat { diffusers, dense_zero, single_file };
// "diffusers", "dense-zero", "single-file". Throws Error(usage).
ExportFormat parse_export_format(const std::string& name);

struct ExportRequest {
  Spec spec;                         // what to write: `weights` under base names hold at least its tensors
  TensorMap weights;                 // as stored
  std::filesystem::path pipeline;    // empty: a U-Net folder comes out; else this pipeline with another U-Net
  std::filesystem::path checkpoint;  // for a single file from a single file: the one that has the other parts
  std::string variant;               // of the pipeline's other parts, where they have it
  std::map<std::string, TensorMap> changed_parts;  // text encoders by folder: other weights than the pipeline has
  ExportFormat format = ExportFormat::diffusers;
  std::optional<at::ScalarType> storage;  // none: as stored
  std::string base_model;                 // for the model card
  Json made_by;                           // provenance of this export
  runtime::Existing existing = runtime::Existing::refuse;
};

// Throws Error(usage): no such form, with the reason.
ExportPlan plan_export(const Spec& spec, ExportFormat format);

// Throws Error: usage (existing output), bad_input (a pipeline's file that does not read), non_finite (a weight that
// is, or becomes, NaN or Inf), resources.
void write_export(const std::filesystem::path& folder, const ExportRequest& request, const ExportPlan& plan);

}  // namespace laptopdiff::unet
