#include "diffusion/image_set.h"

#include <torch/types.h>

#include "diffusion/image.h"
#include "runtime/hash.h"
#include "runtime/tensors.h"
#include "tests/metrics/tiny_models.h"
#include "tests/support/thrown.h"

#include <doctest/doctest.h>

namespace laptopdiff::diffusion {
namespace {

using runtime::ExitCode;

test::Thrown numbered_failure(const test::TemporaryFolder& folder) {
  return test::thrown_by([&] { ImageSet::open_numbered(folder.path()); });
}
test::Thrown reference_failure(const test::TemporaryFolder& folder) {
  return test::thrown_by([&] { ImageSet::open_reference(folder.path()); });
}

TEST_CASE("numbered pictures come in order, other files are left alone") {
  const test::TemporaryFolder folder;
  const at::Tensor pictures = test::noise_pictures(3, 5, 3);
  for (const int i : {2, 0, 1}) write_png(folder / ("00000" + std::to_string(i) + ".png"), pictures[i]);
  test::put_bytes(folder / "run.json", "{}");
  const ImageSet set = ImageSet::open_numbered(folder.path());
  REQUIRE(set.count() == 3);
  for (int i = 0; i < 3; ++i) CHECK(at::equal(set.picture(i), pictures[i]));
}

TEST_CASE("a data folder is read from its tensor, and goes before PNG files") {
  const test::TemporaryFolder folder;
  const at::Tensor pictures = test::noise_pictures(4, 5, 1);
  runtime::write_tensors(folder / "images.safetensors", {{"images", pictures}});
  write_png(folder / "x.png", pictures[0]);
  ImageSet set = ImageSet::open_reference(folder.path());
  CHECK(set.count() == 4);
  CHECK(at::equal(set.picture(3), pictures[3]));
  CHECK(set.digest() == runtime::sha256_file(folder / "images.safetensors"));
  set.limit(2);
  CHECK(set.count() == 2);
}

TEST_CASE("a digest knows names and contents of the pictures in the set") {
  const test::TemporaryFolder folder;
  const at::Tensor pictures = test::noise_pictures(3, 5, 3);
  write_png(folder / "a.png", pictures[0]);
  write_png(folder / "b.png", pictures[1]);
  const std::string before = ImageSet::open_reference(folder.path()).digest();
  CHECK(ImageSet::open_reference(folder.path()).digest() == before);
  SUBCASE("another name") { std::filesystem::rename(folder / "b.png", folder / "c.png"); }
  SUBCASE("another picture") { write_png(folder / "b.png", pictures[2]); }
  SUBCASE("one more") { write_png(folder / "c.png", pictures[2]); }
  CHECK(ImageSet::open_reference(folder.path()).digest() != before);
}

TEST_CASE("a folder that is no set of pictures says why") {
  const test::TemporaryFolder folder;
  SUBCASE("missing") {
    const auto thrown = test::thrown_by([&] { ImageSet::open_numbered(folder / "none"); });
    CHECK(thrown.code == ExitCode::bad_input);
    CHECK(thrown.says("there is no such folder"));
  }
  SUBCASE("a file") {
    test::put_bytes(folder / "file", "x");
    const auto thrown = test::thrown_by([&] { ImageSet::open_reference(folder / "file"); });
    CHECK(thrown.says("expected a folder of pictures, this is a file"));
  }
  SUBCASE("empty") {
    CHECK(numbered_failure(folder).says("there are no pictures; expected 000000.png, 000001.png, ..."));
    CHECK(reference_failure(folder).says("there are no pictures; expected .png files or images.safetensors"));
  }
  SUBCASE("a gap") {
    for (const char* name : {"000000.png", "000002.png"}) write_png(folder / name, at::zeros({2, 2, 3}, at::kByte));
    CHECK(numbered_failure(folder).says("000001.png is missing among 2 .png files; picture i belongs to prompt i"));
  }
  SUBCASE("another name") {
    write_png(folder / "cat.png", at::zeros({2, 2, 3}, at::kByte));
    CHECK(numbered_failure(folder).says("000000.png is missing among 1 .png files"));
  }
  SUBCASE("a picture that cannot be read") {
    test::put_bytes(folder / "000000.png", "not a picture");
    const auto thrown = test::thrown_by([&] { ImageSet::open_numbered(folder.path()).picture(0); });
    CHECK(thrown.code == ExitCode::bad_input);
    CHECK(thrown.says("000000.png"));
  }
  SUBCASE("a tensor of another name") {
    runtime::write_tensors(folder / "images.safetensors", {{"pictures", at::zeros({1, 2, 2, 3}, at::kByte)}});
    CHECK(reference_failure(folder).says("there is no tensor `images`"));
  }
  SUBCASE("a tensor of another type") {
    runtime::write_tensors(folder / "images.safetensors", {{"images", at::zeros({1, 2, 2, 3})}});
    CHECK(reference_failure(folder).says("`images` must be U8 [N, H, W, 1 or 3], is F32 [1, 2, 2, 3]"));
  }
  SUBCASE("channels first") {
    runtime::write_tensors(folder / "images.safetensors", {{"images", at::zeros({1, 3, 2, 2}, at::kByte)}});
    CHECK(reference_failure(folder).says("is U8 [1, 3, 2, 2]"));
  }
  SUBCASE("no rows") {
    runtime::write_tensors(folder / "images.safetensors", {{"images", at::zeros({0, 2, 2, 3}, at::kByte)}});
    CHECK(reference_failure(folder).says("there are no pictures"));
  }
}

TEST_CASE("named pictures come in the order of their names, and stay inside the folder") {
  const test::TemporaryFolder folder;
  const at::Tensor pictures = test::noise_pictures(2, 5, 3);
  std::filesystem::create_directory(folder / "sub");
  write_png(folder / "b.png", pictures[0]);
  write_png(folder / "sub" / "a..b.png", pictures[1]);
  const ImageSet set = ImageSet::open_named(folder.path(), {"sub/a..b.png", "sub/../b.png"});
  CHECK(at::equal(set.picture(0), pictures[1]));
  CHECK(at::equal(set.picture(1), pictures[0]));
  for (const char* name : {"../x.png", "/x.png", "sub/../../x.png", ""}) {
    const auto thrown = test::thrown_by([&] { ImageSet::open_named(folder.path(), {name}); });
    CHECK(thrown.code == ExitCode::bad_input);
    CHECK(thrown.says("leaves the folder"));
  }
}

}  // namespace
}  // namespace laptopdiff::diffusion
