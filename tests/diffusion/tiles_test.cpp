#include "diffusion/tiles.h"

#include <torch/types.h>

#include "tests/support/thrown.h"

#include <doctest/doctest.h>

namespace laptopdiff::diffusion {
namespace {

using laptopdiff::test::thrown_by;

at::Tensor doubled(const at::Tensor& x) { return at::upsample_nearest2d(x, {2 * x.size(2), 2 * x.size(3)}); }

TEST_CASE("a network without a neighbourhood gives the same in tiles") {
  for (const std::int64_t height : {1, 4, 7, 13}) {
    for (const std::int64_t width : {3, 4, 5, 12}) {
      CAPTURE(height);
      CAPTURE(width);
      const at::Tensor image = at::randn({2, 3, height, width});
      CHECK(at::allclose(run_tiled(image, {4, 8}, doubled), doubled(image)));
    }
  }
}

TEST_CASE("no tile is larger than it says") {
  std::vector<std::int64_t> sides;
  const auto run = [&](const at::Tensor& x) {
    sides.insert(sides.end(), {x.size(2), x.size(3)});
    return x.clone();
  };
  CHECK(run_tiled(at::zeros({1, 1, 9, 4}), {4, 4}, run).sizes() == at::IntArrayRef{1, 1, 9, 4});
  CHECK(sides == std::vector<std::int64_t>{4, 4, 4, 1, 4, 4, 4, 1, 3, 4, 3, 1});
}

TEST_CASE("neighbouring tiles fade into each other over a quarter of a tile") {
  // Tiles of 8 start at columns 0 and 6; the n-th gives n everywhere.
  double n = 0;
  const auto numbered = [&](const at::Tensor& x) { return at::full_like(x, n++); };
  const at::Tensor row = run_tiled(at::zeros({1, 1, 1, 12}), {8, 8}, numbered).flatten();
  CHECK(at::equal(row, at::tensor({0., 0., 0., 0., 0., 0., 0., 0.5, 1., 1., 1., 1.}, at::kFloat)));
  n = 0;
  const at::Tensor column = run_tiled(at::zeros({1, 1, 12, 1}), {8, 8}, numbered).flatten();
  CHECK(at::equal(column, row));
}

TEST_CASE("tiles too small to overlap are refused") {
  const auto thrown = thrown_by([] { run_tiled(at::zeros({1, 1, 9, 9}), {1, 8}, doubled); });
  CHECK(thrown.code == runtime::ExitCode::bad_input);
  CHECK(thrown.says("too small to overlap"));
}

}  // namespace
}  // namespace laptopdiff::diffusion
