#include "metrics/image_batches.h"

#include <torch/types.h>

#include "diffusion/image.h"
#include "runtime/progress.h"
#include "tests/metrics/tiny_models.h"

#include <doctest/doctest.h>

namespace laptopdiff::metrics {
namespace {

// Holds progress back while a test runs.
struct Quiet {
  Quiet() { runtime::set_verbosity(runtime::Verbosity::quiet); }
  ~Quiet() { runtime::set_verbosity(runtime::Verbosity::normal); }
};

TEST_CASE("batches hold all pictures, and sizes are noted") {
  const Quiet quiet;
  const test::TemporaryFolder folder;
  for (int i = 0; i < 5; ++i) {
    diffusion::write_png(folder / ("00000" + std::to_string(i) + ".png"),
                         at::full({3, i == 3 ? 7 : 4, 3}, i, at::kByte));
  }
  ImageSet set = ImageSet::open_numbered(folder.path());
  std::vector<int> seen;
  const auto visit = [&](const std::vector<at::Tensor>& pictures) {
    CHECK(pictures.size() <= 2);
    for (const at::Tensor& picture : pictures) seen.push_back(picture[0][0][0].item<int>());
  };
  const SizeRange sizes = for_each_batch(set, 2, "pictures", visit);
  CHECK(seen == std::vector<int>{0, 1, 2, 3, 4});
  CHECK(sizes.mixed);
  CHECK(sizes.smallest == PictureSize{3, 4});
  CHECK(sizes.largest == PictureSize{3, 7});
  set.limit(3);
  CHECK_FALSE(for_each_batch(set, 2, "pictures", visit).mixed);
}

}  // namespace
}  // namespace laptopdiff::metrics
