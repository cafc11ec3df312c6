#include "diffusion/vae.h"

#include <torch/types.h>

#include "tests/diffusion/small_models.h"
#include "tests/support/thrown.h"

#include <doctest/doctest.h>

namespace laptopdiff::diffusion {
namespace {

using laptopdiff::test::thrown_by;
using runtime::Json;

TEST_CASE("the VAE of Stable Diffusion has its known number of parameters") {
  Json config = test::small_vae_json();
  config["block_out_channels"] = {128, 256, 512, 512};
  config["layers_per_block"] = 2;
  config["norm_num_groups"] = 32;
  config["down_block_types"] = std::vector<std::string>(4, "DownEncoderBlock2D");
  config["up_block_types"] = std::vector<std::string>(4, "UpDecoderBlock2D");
  AutoencoderKl vae(vae_config(config, "config.json"));
  std::int64_t all = 0, encoder = 0;
  for (const auto& item : vae->named_parameters()) {
    all += item.value().numel();
    if (item.key().rfind("encoder.", 0) == 0) encoder += item.value().numel();
  }
  CHECK(all == 83'653'863);
  CHECK(encoder == 34'163'592);
  CHECK(vae->downscale() == 8);
}

TEST_CASE("images and latents have the stated shapes, whatever the size") {
  const VaeConfig config = vae_config(test::small_vae_json(), "config.json");
  AutoencoderKl empty(config);
  auto vae = make_vae(config, test::random_weights(*empty), "test");
  const at::NoGradGuard no_grad;
  const Moments moments = vae->encode_moments(at::zeros({2, 3, 12, 20}));
  CHECK(moments.mean.sizes() == at::IntArrayRef{2, 4, 6, 10});
  CHECK(moments.logvar.sizes() == moments.mean.sizes());
  CHECK(vae->decode(moments.mean).sizes() == at::IntArrayRef{2, 3, 12, 20});
  CHECK(vae->scaling_factor() == 0.5);
}

TEST_CASE("tiling leaves images of one tile alone, and gives larger ones their size") {
  Json json = test::small_vae_json();
  SUBCASE("a side") { json["sample_size"] = 16; }
  SUBCASE("height and width") { json["sample_size"] = {16, 24}; }
  const VaeConfig config = vae_config(json, "config.json");
  CHECK(config.sample_size == 16);
  AutoencoderKl empty(config);
  auto vae = make_vae(config, test::random_weights(*empty), "test");
  const at::NoGradGuard no_grad;
  const at::Tensor small = at::randn({1, 4, 8, 5}), large = at::randn({2, 4, 9, 30});
  CHECK(at::equal(vae->decode(small, Tiling::on), vae->decode(small)));
  CHECK(vae->decode(large, Tiling::on).sizes() == at::IntArrayRef{2, 3, 18, 60});
  CHECK_FALSE(at::allclose(vae->decode(large, Tiling::on), vae->decode(large)));
}

TEST_CASE("the log-variance is clamped") {
  const VaeConfig config = vae_config(test::small_vae_json(), "config.json");
  AutoencoderKl empty(config);
  auto weights = test::random_weights(*empty);
  weights["quant_conv.bias"] = at::tensor({0.F, 0.F, 0.F, 0.F, 1e4F, -1e4F, 0.F, 0.F});
  auto vae = make_vae(config, weights, "test");
  const Moments moments = vae->encode_moments(at::zeros({1, 3, 4, 4}));
  CHECK(moments.logvar.max().item<double>() == 20);
  CHECK(moments.logvar.min().item<double>() == -30);
}

TEST_CASE("VAE configs that are not supported are refused by name") {
  Json config = test::small_vae_json();
  std::string expected;
  SUBCASE("another class") {
    config["_class_name"] = "VQModel";
    expected = "`_class_name` VQModel is not supported";
  }
  SUBCASE("a shift") {
    config["shift_factor"] = 0.1;
    expected = "`shift_factor` is not supported";
  }
  SUBCASE("latent statistics") {
    config["latents_mean"] = {0.0, 0.0, 0.0, 0.0};
    expected = "`latents_mean` is not supported";
  }
  SUBCASE("another activation") {
    config["act_fn"] = "mish";
    expected = "`act_fn` \"mish\" is not supported";
  }
  SUBCASE("other blocks") {
    config["down_block_types"] = {"DownEncoderBlock2D", "AttnDownEncoderBlock2D"};
    expected = "\"AttnDownEncoderBlock2D\" is not supported";
  }
  SUBCASE("a block too few") {
    config["up_block_types"] = {"UpDecoderBlock2D"};
    expected = "`up_block_types` has 1 entries, `block_out_channels` has 2";
  }
  SUBCASE("groups that do not divide a width") {
    config["norm_num_groups"] = 3;
    expected = "`block_out_channels` 8 is not a multiple of `norm_num_groups` 3";
  }
  SUBCASE("no width") {
    config["latent_channels"] = 0;
    expected = "`latent_channels` is 0";
  }
  SUBCASE("no scale") {
    config["scaling_factor"] = 0.0;
    expected = "`scaling_factor` must be above 0";
  }
  const auto thrown = thrown_by([&] { vae_config(config, "config.json"); });
  CAPTURE(thrown.message);
  CHECK(thrown.code == runtime::ExitCode::bad_input);
  CHECK(thrown.says(expected));
}

TEST_CASE("a shift of nothing is accepted") {
  Json config = test::small_vae_json();
  config["shift_factor"] = nullptr;
  config["latents_mean"] = nullptr;
  CHECK(vae_config(config, "config.json").latent_channels == 4);
}

}  // namespace
}  // namespace laptopdiff::diffusion
