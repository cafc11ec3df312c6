// The tensors of a whole pipeline under the names of single-file checkpoints.
#pragma once

#include <c10/core/ScalarType.h>

#include <filesystem>
#include <map>
#include <optional>
#include <string>

#include "runtime/tensors.h"
#include "unet/config.h"
#include "unet/original_names.h"
#include "unet/tensor_stream.h"

namespace laptopdiff::unet {

// The numbering that original files of this architecture use.
Family original_family(const Config& config);

// Renames a U-Net's stream. Throws Error(usage), no such form, naming a tensor that original files have no name for
// (stages of more than two layers, class embeddings of other kinds, UNet2DModel's attention).
TensorStream original_unet(const TensorStream& tensors, Family family);

// The parts of a pipeline folder beside its U-Net.
struct PipelineParts {
  std::filesystem::path folder;
  std::string variant;                                       // of their weights, where they have it
  const std::map<std::string, runtime::TensorMap>& changed;  // by component: read instead of its files
};

// Adds vae/ and text_encoder[_2]/. `storage`: none keeps what is stored. Throws Error(bad_input) where they do not
// read, Error(usage) for names without a counterpart.
void add_pipeline_parts(TensorStream& stream, const PipelineParts& parts, std::optional<at::ScalarType> storage);

// Adds everything but the U-Net of a checkpoint that is in original names already.
void add_other_parts(TensorStream& stream, const std::filesystem::path& checkpoint,
                     std::optional<at::ScalarType> storage);

}  // namespace laptopdiff::unet
