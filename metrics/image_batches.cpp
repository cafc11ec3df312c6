#include "metrics/image_batches.h"

#include <torch/types.h>

#include <algorithm>

#include "runtime/error.h"
#include "runtime/progress.h"
#include "runtime/stop.h"

namespace laptopdiff::metrics {
namespace {

using namespace runtime;

void note_size(const at::Tensor& picture, bool first, SizeRange& sizes) {
  const PictureSize size{picture.size(0), picture.size(1)};
  const auto area = [](const PictureSize& s) { return s.height * s.width; };
  if (first) sizes.first = sizes.smallest = sizes.largest = size;
  if (area(size) < area(sizes.smallest)) sizes.smallest = size;
  if (area(size) > area(sizes.largest)) sizes.largest = size;
  sizes.mixed = sizes.mixed || size != sizes.first;
}

}  // namespace

SizeRange for_each_batch(const ImageSet& images, std::int64_t batch, const std::string& stage,
                         const BatchVisitor& visit) {
  TORCH_CHECK(batch > 0, "for_each_batch: batch must be positive, is ", batch);
  SizeRange sizes;
  Progress progress(stage, images.count(), "pictures");
  for (std::int64_t from = 0; from < images.count(); from += batch) {
    if (stop_requested()) throw Error(ExitCode::interrupted, "interrupted; nothing was written");
    const std::int64_t to = std::min(images.count(), from + batch);
    std::vector<at::Tensor> pictures;
    for (std::int64_t i = from; i < to; ++i) {
      pictures.push_back(images.picture(i));
      note_size(pictures.back(), i == 0, sizes);
    }
    visit(pictures);
    progress.update(to);
  }
  progress.finish();
  return sizes;
}

}  // namespace laptopdiff::metrics
