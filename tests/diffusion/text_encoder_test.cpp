#include "diffusion/text_encoder.h"

#include <torch/types.h>

#include "tests/diffusion/small_models.h"
#include "tests/support/thrown.h"

#include <doctest/doctest.h>

namespace laptopdiff::diffusion {
namespace {

using laptopdiff::test::thrown_by;
using runtime::ExitCode;
using runtime::Json;
using runtime::TensorMap;
using test::TemporaryFolder;

ClipTextModel small_model(const ClipTextConfig& config = test::small_text_config()) {
  ClipTextModel model(config);
  return make_text_model(config, test::random_weights(*model), "test");
}

TEST_CASE("a token never sees the ones after it") {
  auto model = small_model();
  const at::Tensor ids = torch::tensor({{518, 3, 4, 5, 519, 519, 519, 519}}, at::kLong);
  at::Tensor other = ids.clone();
  other.slice(1, 5) = 7;
  const auto a = model(ids), b = model(other);
  CHECK(at::equal(a.last_hidden_state.slice(1, 0, 5), b.last_hidden_state.slice(1, 0, 5)));
  CHECK_FALSE(at::equal(a.last_hidden_state, b.last_hidden_state));
  CHECK(at::equal(a.pooled, b.pooled));
}

TEST_CASE("the outputs have the stated shapes and agree with each other") {
  auto config = test::small_text_config();
  config.has_projection = true;
  config.projection_dim = 5;
  auto model = small_model(config);
  const auto output = model(torch::tensor({{518, 3, 519, 519}, {518, 519, 519, 519}}, at::kLong));
  CHECK(output.last_hidden_state.sizes() == at::IntArrayRef{2, 4, 16});
  CHECK(output.hidden_states.size() == 3);
  CHECK(output.text_embeds.sizes() == at::IntArrayRef{2, 5});
  CHECK(at::equal(output.pooled[0], output.last_hidden_state[0][2]));
  CHECK(at::equal(output.pooled[1], output.last_hidden_state[1][1]));
}

TEST_CASE("the legacy end id 2 pools at the highest id") {
  auto config = test::small_text_config();
  config.eos_token_id = 2;
  auto model = small_model(config);
  const auto output = model(torch::tensor({{518, 3, 519, 0}}, at::kLong));
  CHECK(at::equal(output.pooled[0], output.last_hidden_state[0][2]));
}

TEST_CASE("all misfits of a weight file are listed at once") {
  const auto config = test::small_text_config();
  ClipTextModel model(config);
  TensorMap weights = test::random_weights(*model);
  weights.erase("final_layer_norm.bias");
  weights["encoder.layers.7.mlp.fc1.bias"] = at::zeros({3});
  weights["final_layer_norm.weight"] = at::zeros({3});
  weights["text_model.embeddings.position_ids"] = at::arange(8);
  weights["vision_model.class_embedding"] = at::zeros({3});
  const auto thrown = thrown_by([&] { make_text_model(config, weights, "encoder"); });
  CHECK(thrown.code == ExitCode::bad_input);
  CHECK(thrown.says("missing (1): final_layer_norm.bias"));
  CHECK(thrown.says("unexpected (1): encoder.layers.7.mlp.fc1.bias"));
  CHECK(thrown.says("final_layer_norm.weight is [3], the config says [16]"));
  CHECK_FALSE(thrown.says("position_ids"));
  CHECK_FALSE(thrown.says("vision_model"));
}

TEST_CASE("ids that the encoder cannot take are refused") {
  auto model = small_model();
  SUBCASE("outside the vocabulary") {
    const auto thrown = thrown_by([&] { model(torch::tensor({{518, 520}}, at::kLong)); });
    CHECK(thrown.says("token id 520 is outside its vocabulary of 520"));
  }
  SUBCASE("below it") {
    CHECK(thrown_by([&] { model(torch::tensor({{-1, 3}}, at::kLong)); }).says("token id -1"));
  }
  SUBCASE("too many") {
    CHECK(thrown_by([&] { model(at::zeros({1, 9}, at::kLong)); }).says("9 tokens, but it has 8 positions"));
  }
}

TEST_CASE("configs that are not supported are refused by name") {
  Json config = test::small_text_json();
  std::string expected;
  SUBCASE("another model") {
    config["model_type"] = "t5";
    expected = "`model_type` \"t5\" is not supported";
  }
  SUBCASE("another class") {
    config["architectures"] = {"CLIPVisionModel"};
    expected = "`architectures` says CLIPVisionModel";
  }
  SUBCASE("another activation") {
    config["hidden_act"] = "relu";
    expected = "`hidden_act` \"relu\" is not supported";
  }
  SUBCASE("heads that do not divide the width") {
    config["num_attention_heads"] = 3;
    expected = "`hidden_size` 16 is not a multiple of `num_attention_heads` 3";
  }
  SUBCASE("an impossible size") {
    config["num_hidden_layers"] = 0;
    expected = "`num_hidden_layers` is 0";
  }
  SUBCASE("an impossible epsilon") {
    config["layer_norm_eps"] = 0;
    expected = "`layer_norm_eps` must be above 0";
  }
  SUBCASE("a type of the wrong kind") {
    config["model_type"] = 3;
    expected = "`model_type`";
  }
  SUBCASE("a list") {
    config = Json::array();
    expected = "config.json";
  }
  const auto thrown = thrown_by([&] { clip_text_config(config, "config.json"); });
  CAPTURE(thrown.message);
  CHECK(thrown.code == ExitCode::bad_input);
  CHECK(thrown.says(expected));
}

TEST_CASE("a folder without safetensors names the pickle that is there") {
  const TemporaryFolder folder;
  test::put_bytes(folder / "config.json", test::small_text_json().dump());
  test::put_bytes(folder / "pytorch_model.bin", "x");
  const auto thrown = thrown_by([&] { load_text_model(folder.path()); });
  CHECK(thrown.code == ExitCode::bad_input);
  CHECK(thrown.says("expected model.safetensors"));
  CHECK(thrown.says("pytorch_model.bin is pickled"));
}

TEST_CASE("broken shard indexes are refused") {
  const TemporaryFolder folder;
  test::put_bytes(folder / "config.json", test::small_text_json().dump());
  runtime::write_tensors(folder / "a.safetensors", {{"x", at::zeros({1})}});
  std::string expected;
  SUBCASE("a tensor that its shard lacks") {
    test::put_bytes(folder / "model.safetensors.index.json", R"({"weight_map": {"y": "a.safetensors"}})");
    expected = "missing from their shards: y (a.safetensors)";
  }
  SUBCASE("a shard elsewhere") {
    test::put_bytes(folder / "model.safetensors.index.json", R"({"weight_map": {"y": "../a.safetensors"}})");
    expected = "is not a file name in this folder";
  }
  SUBCASE("no map") {
    test::put_bytes(folder / "model.safetensors.index.json", "{}");
    expected = "`weight_map` must be an object";
  }
  const auto thrown = thrown_by([&] { load_text_model(folder.path()); });
  CHECK(thrown.code == ExitCode::bad_input);
  CHECK(thrown.says(expected));
}

TEST_CASE("a batch of texts is a matrix of ids") {
  const TemporaryFolder folder;
  test::SmallTokenizer().write(folder.path());
  const Tokenizer tokenizer = Tokenizer::load(folder.path());
  const at::Tensor ids = encode_batch(tokenizer, {"cat", ""});
  CHECK(at::equal(
      ids,
      torch::tensor({{518, 513, 519, 519, 519, 519, 519, 519}, {518, 519, 519, 519, 519, 519, 519, 519}}, at::kLong)));
  CHECK(encode_batch(tokenizer, {}).sizes() == at::IntArrayRef{0, 8});
}

}  // namespace
}  // namespace laptopdiff::diffusion
