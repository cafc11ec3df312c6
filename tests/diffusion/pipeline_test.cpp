#include "diffusion/pipeline.h"

#include <torch/types.h>

#include "tests/diffusion/small_models.h"
#include "tests/support/thrown.h"

#include <doctest/doctest.h>

namespace laptopdiff::diffusion {
namespace {

using laptopdiff::test::thrown_by;
using runtime::ExitCode;
using test::put_bytes;
using test::TemporaryFolder;

TEST_CASE("a Stable Diffusion folder encodes prompts and decodes latents") {
  const TemporaryFolder folder;
  test::write_pipeline(folder.path());
  auto pipeline = Pipeline::load(folder.path());
  CHECK(pipeline.class_name == "StableDiffusionPipeline");
  CHECK(pipeline.unet_class == "UNet2DConditionModel");
  CHECK(pipeline.unet_folder == folder / "unet");
  CHECK_FALSE(pipeline.is_xl());
  const auto encoded = pipeline.encode_prompts({"cat", "the cat"});
  CHECK(encoded.context.sizes() == at::IntArrayRef{2, 8, 16});
  CHECK_FALSE(encoded.context.requires_grad());
  CHECK_FALSE(encoded.pooled.defined());
  CHECK(at::allclose(pipeline.encode_unconditional().context, pipeline.encode_prompts({""}).context));
  const at::Tensor images = pipeline.to_images(at::zeros({2, 4, 3, 3}));
  CHECK(images.sizes() == at::IntArrayRef{2, 6, 6, 3});
  CHECK(pipeline.encode_images(images).mean.sizes() == at::IntArrayRef{2, 4, 3, 3});
}

TEST_CASE("latents are unscaled before they are decoded") {
  const TemporaryFolder folder;
  test::write_pipeline(folder.path());
  auto pipeline = Pipeline::load(folder.path());
  const at::Tensor latents = at::randn({1, 4, 3, 3});
  const at::Tensor decoded = (*pipeline.vae)->decode(latents / 0.5);
  CHECK(at::equal(pipeline.to_images(latents)[0],
                  (decoded / 2 + 0.5).clamp(0, 1).mul(255).round().to(at::kByte)[0].permute({1, 2, 0})));
}

TEST_CASE("clip skip conditions on an earlier state, normed") {
  const TemporaryFolder folder;
  test::write_pipeline(folder.path());
  auto pipeline = Pipeline::load(folder.path());
  CHECK(pipeline.max_clip_skip() == 2);
  auto& tower = pipeline.text.front();
  const TextOutput output = tower.model(encode_batch(tower.tokenizer, {"cat"}));
  CHECK(at::equal(pipeline.encode_prompts({"cat"}, 0).context, output.last_hidden_state));
  for (const std::int64_t skip : {1, 2}) {
    const at::Tensor& state = output.hidden_states[static_cast<std::size_t>(2 - skip)];
    CHECK(at::equal(pipeline.encode_prompts({"cat"}, skip).context, tower.model->final_norm(state)));
  }
  CHECK_THROWS(pipeline.encode_prompts({"cat"}, 3));
}

TEST_CASE("settings that diffusers' Stable Diffusion pipelines overrule are overruled") {
  const TemporaryFolder folder;
  test::write_pipeline(folder.path());
  put_bytes(folder / "scheduler" / "scheduler_config.json",
            R"({"_class_name": "DDIMScheduler", "clip_sample": true, "set_alpha_to_one": false})");
  const auto pipeline = Pipeline::load(folder.path(), Parts::text_only);
  CHECK(pipeline.scheduler_config["clip_sample"] == false);
  CHECK(pipeline.scheduler_config["steps_offset"] == 1);
  CHECK(pipeline.scheduler_config["set_alpha_to_one"] == false);
}

TEST_CASE("only the parts that are asked for are read") {
  const TemporaryFolder folder;
  test::write_pipeline(folder.path());
  std::filesystem::remove(folder / "vae" / "diffusion_pytorch_model.safetensors");
  const auto text_only = Pipeline::load(folder.path(), Parts::text_only);
  CHECK(text_only.text.size() == 1);
  CHECK_FALSE(text_only.vae.has_value());
  CHECK(Pipeline::load(folder.path(), Parts::config_only).text.empty());
  CHECK(thrown_by([&] { Pipeline::load(folder.path()); }).says("no weights"));
}

TEST_CASE("an unconditional folder has a network and a scheduler, and its samples are the images") {
  const TemporaryFolder folder;
  std::filesystem::create_directories(folder / "unet");
  std::filesystem::create_directories(folder / "scheduler");
  put_bytes(folder / "model_index.json", R"({"_class_name": "DDPMPipeline", "unet": ["diffusers", "UNet2DModel"],
                                             "scheduler": ["diffusers", "DDPMScheduler"]})");
  put_bytes(folder / "scheduler" / "scheduler_config.json", R"({"_class_name": "DDPMScheduler"})");
  auto pipeline = Pipeline::load(folder.path());
  CHECK(pipeline.unet_class == "UNet2DModel");
  CHECK(pipeline.text.empty());
  CHECK(at::equal(pipeline.to_images(at::full({1, 3, 2, 2}, 1.F)), at::full({1, 2, 2, 3}, 255, at::kByte)));
}

TEST_CASE("an unconditional model with all its files in one folder is read from the top level") {
  const TemporaryFolder folder;
  put_bytes(folder / "config.json", R"({"_class_name": "UNet2DModel"})");
  put_bytes(folder / "scheduler_config.json", R"({"_class_name": "DDPMScheduler"})");
  SUBCASE("without an index") {}
  SUBCASE("with one") {
    put_bytes(folder / "model_index.json", R"({"_class_name": "DDPMPipeline", "unet": ["diffusers", "UNet2DModel"],
                                               "scheduler": ["diffusers", "DDPMScheduler"]})");
  }
  const auto pipeline = Pipeline::load(folder.path());
  CHECK(pipeline.class_name == "DDPMPipeline");
  CHECK(pipeline.unet_folder == folder.path());
  CHECK(pipeline.scheduler_config["_class_name"] == "DDPMScheduler");
}

TEST_CASE("pipelines that cannot be read say all that is wrong") {
  const TemporaryFolder folder;
  test::write_pipeline(folder.path());
  SUBCASE("no index") {
    std::filesystem::remove(folder / "model_index.json");
    const auto thrown = thrown_by([&] { Pipeline::load(folder.path()); });
    CHECK(thrown.code == ExitCode::bad_input);
    CHECK(thrown.says("no model_index.json"));
  }
  SUBCASE("components missing and of other classes") {
    put_bytes(folder / "model_index.json",
              R"({"_class_name": "X", "unet": ["diffusers", "Transformer2DModel"], "vae": [null, null],
                  "text_encoder": ["transformers", "CLIPTextModel"], "tokenizer": ["transformers", "CLIPTokenizer"],
                  "scheduler": ["diffusers", "DDIMScheduler"]})");
    std::filesystem::remove_all(folder / "tokenizer");
    const auto thrown = thrown_by([&] { Pipeline::load(folder.path()); });
    CAPTURE(thrown.message);
    CHECK(thrown.says("unet is a Transformer2DModel, expected UNet2DConditionModel or UNet2DModel"));
    CHECK(thrown.says("vae is missing"));
    CHECK(thrown.says("the folder tokenizer/ is missing"));
  }
  SUBCASE("an entry of another form") {
    put_bytes(folder / "model_index.json", R"({"_class_name": "X", "unet": "UNet2DModel"})");
    CHECK(thrown_by([&] { Pipeline::load(folder.path()); }).says("`unet`: expected [library, class]"));
  }
  SUBCASE("a tokenizer with more ids than the encoder") {
    put_bytes(folder / "tokenizer" / "added_tokens.json", R"({"<x>": 520})");
    CHECK(thrown_by([&] {
            Pipeline::load(folder.path());
          }).says("has token ids up to 520, but text_encoder has a vocabulary of 520"));
  }
  SUBCASE("a tokenizer that pads past the encoder's positions") {
    put_bytes(folder / "tokenizer" / "tokenizer_config.json", "{}");
    CHECK(
        thrown_by([&] { Pipeline::load(folder.path()); }).says("pads to 77 tokens, but text_encoder has 8 positions"));
  }
}

}  // namespace
}  // namespace laptopdiff::diffusion
