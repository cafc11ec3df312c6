// Any JSON as a spec or a spec set. The first byte chooses a base for inputs that bring none: SD 1.x, SDXL, DDPM.
#include "tests/fuzz/fuzz.h"
#include "unet/spec.h"

namespace {

using namespace laptopdiff;
using runtime::Json;
using unet::Spec;

struct Base {
  const char* class_name;
  const char* config;
};
// Full topologies; SDXL's with fewer blocks a layer, to be quick.
constexpr Base kBases[] = {
    {"UNet2DConditionModel", R"({"sample_size": 64, "cross_attention_dim": 768})"},
    {"UNet2DConditionModel", R"({
        "sample_size": 128, "block_out_channels": [320, 640, 1280], "cross_attention_dim": 2048,
        "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
        "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
        "transformer_layers_per_block": [1, 2, 3], "attention_head_dim": [5, 10, 20], "use_linear_projection": true,
        "addition_embed_type": "text_time", "addition_time_embed_dim": 256,
        "projection_class_embeddings_input_dim": 2816})"},
    {"UNet2DModel", R"({
        "sample_size": 32, "in_channels": 3, "out_channels": 3, "block_out_channels": [128, 256, 256, 256],
        "down_block_types": ["DownBlock2D", "AttnDownBlock2D", "DownBlock2D", "DownBlock2D"],
        "up_block_types": ["UpBlock2D", "UpBlock2D", "AttnUpBlock2D", "UpBlock2D"],
        "attention_head_dim": null, "downsample_padding": 0, "flip_sin_to_cos": false, "freq_shift": 1})"},
};

Json with_base(Json json, std::uint8_t choice) {
  if (!json.is_object()) return json;
  const Base& base = kBases[choice % std::size(kBases)];
  if (!json.contains("format")) json["format"] = "laptopdiff.spec/1";
  if (!json.contains("base")) json["base"] = {{"class", base.class_name}, {"config", Json::parse(base.config)}};
  return json;
}

void check_spec(const Spec& spec) {
  const unet::Program base = unet::build_base(spec.base), pruned = unet::prune(base, spec);
  fuzz::require(pruned.params() <= base.params() && pruned.macs() <= base.macs(), "a student is no larger");
  const Spec again = unet::parse_spec(unet::spec_json(spec), "printed.json");
  fuzz::require(unet::same_spec(spec, again), "a spec printed and read again is the same");

  Spec canonical = spec;
  canonical.removed = unet::canonical_removals(base, spec);
  fuzz::require(unet::canonical_removals(base, canonical) == canonical.removed, "canonical removals stay as they are");
  const unet::Program same = unet::prune(base, canonical);
  fuzz::require(same.params() == pruned.params() && same.macs() == pruned.macs(), "and mean the same student");
}

void check_set(std::string_view text) {
  const auto file = fuzz::scratch_folder() / "set.json";
  fuzz::put_file(file, text);
  unet::SpecFile read;
  if (!fuzz::accepts([&] { read = unet::read_spec_file(file); }) || !read.is_set) return;
  const std::vector<Spec>& set = read.specs;
  fuzz::put_file(file, runtime::dump_json(unet::spec_set_json(set)));
  const std::vector<Spec> again = unet::read_spec_file(file).specs;
  fuzz::require(again.size() == set.size(), "a set printed and read again has the same students");
  for (std::size_t i = 0; i < set.size(); ++i) {
    fuzz::require(unet::same_spec(set[i], again[i]), "a set printed and read again is the same");
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  const std::string_view text = fuzz::text_of(data + 1, size - 1);
  Json json;
  if (!fuzz::accepts([&] { json = runtime::parse_json(text, "spec.json"); })) return 0;
  if (json.is_object() && json.contains("students")) {
    check_set(text);
    return 0;
  }
  Spec spec;
  if (fuzz::accepts([&] { spec = unet::parse_spec(with_base(std::move(json), data[0]), "spec.json"); }))
    check_spec(spec);
  return 0;
}
