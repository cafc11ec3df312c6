// A set of pictures read once, a batch at a time.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "diffusion/image_set.h"
#include "metrics/resize.h"

namespace laptopdiff::metrics {

using diffusion::ImageSet;

// The sizes met while reading a set.
struct SizeRange {
  PictureSize first, smallest, largest;  // smallest and largest by area
  bool mixed = false;
};

using BatchVisitor = std::function<void(const std::vector<at::Tensor>& pictures)>;
// Reads the set once, `batch` pictures at a time, in order; shows progress under `stage`.
SizeRange for_each_batch(const ImageSet& images, std::int64_t batch, const std::string& stage,
                         const BatchVisitor& visit);

}  // namespace laptopdiff::metrics
