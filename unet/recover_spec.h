// Import of students without a spec.json: those made elsewhere, whose layers are numbered anew, and exports saved
// again.
//
// Where a config alone leaves open which layers are gone, the field's habit decides: a down stage keeps its first
// layers, an up stage its first ones and its last, a transformer its first blocks, a middle of one ResNet the first
// (BK-SDM, Segmind small and tiny, KOALA, SSD-1B, Vega). Where the weights are at hand they decide instead, if they
// clearly tell. Knows no torch.
#pragma once

#include <functional>
#include <string>

#include "unet/spec.h"

namespace laptopdiff::unet {

// How far a student's layer is from a base layer: |s - b|^2 / |b|^2, infinite where shapes differ. Layers are paths of
// ResNets and transformer blocks.
using LayerDistance = std::function<double(const std::string& student, const std::string& base)>;

// The pruned program of the result matches the student's, tensor by tensor. Throws Error(bad_input) with the first
// thing that does not fit where `student` cannot be made from `base` by removing layers.
Spec recover_spec(const Config& student, const Config& base, const LayerDistance& distance = nullptr);

// The spec that the config of our own class for diffusers implies by its `removed_layers`, for an export whose
// spec.json is lost: diffusers saves such a model without it. Throws Error(bad_input) where no spec removes just these
// layers.
Spec spec_of_removed_layers(const Json& config, const std::string& where);

}  // namespace laptopdiff::unet
