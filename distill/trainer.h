// Retrains a pruned student against its teacher.
//
// A run folder holds config.json (the whole config), log.jsonl (a line every log_every steps), checkpoint.safetensors,
// and at the end student/ (a model folder with the averaged weights) and result.json. Kill it anywhere and run the same
// command again: it continues from the last checkpoint and ends with the same bits (CPU, equal threads; on a GPU where
// `repeatable` is on).
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/Device.h>

#include <filesystem>
#include <string>

#include "distill/config.h"
#include "runtime/file.h"
#include "runtime/json.h"

namespace laptopdiff::distill {

struct RunOptions {
  at::Device device = at::Device(at::kCPU);
  at::ScalarType dtype = at::kFloat;  // bf16 runs both networks under autocast; weights and moments stay f32
  runtime::Existing existing = runtime::Existing::refuse;  // overwrite: start over
  runtime::Json made_by;
};

// Returns what result.json holds; at once where the run is complete already.
// Throws Error: usage (config; a folder of another run), bad_input (files), non_finite (loss; the last good checkpoint
// stays), resources, stopped (a signal; state saved).
runtime::Json run_distill(const DistillConfig& config, const std::filesystem::path& folder, const RunOptions& options);

}  // namespace laptopdiff::distill
