#include "unet/config.h"

#include <numeric>

#include "runtime/error.h"
#include "runtime/progress.h"
#include "unet/config_fields.h"

namespace laptopdiff::unet {
namespace {

using runtime::cat;
using runtime::input_error;
using runtime::ObjectReader;

constexpr int kMaxBlocks = 4096;              // ResNets and transformer blocks together
constexpr std::size_t kMostUnknownKeys = 16;  // that are warned about one by one

void check_groups(const Config& c, const std::string& where) {
  for (const auto* stages : {&c.down, &c.mid, &c.up}) {
    for (const Stage& stage : *stages) {
      if (stage.channels % c.norm_groups != 0) {
        throw input_error(where, ": ", stage.path, " has ", stage.channels, " channels, which norm_num_groups ",
                          c.norm_groups, " does not divide");
      }
    }
  }
}

// Each field is in its range; their product may still be a model that nobody could walk, let alone run.
void check_block_count(const Config& c, const std::string& where) {
  int blocks = 0;
  for (const auto* stages : {&c.down, &c.mid, &c.up}) {
    for (const Stage& stage : *stages) blocks += std::accumulate(stage.depth.begin(), stage.depth.end(), stage.layers);
  }
  if (blocks > kMaxBlocks) {
    throw input_error(where, ": `layers_per_block` and `transformer_layers_per_block` make ", blocks,
                      " ResNets and transformer blocks, at most ", kMaxBlocks, " are accepted");
  }
}

void warn_of_unknown(const std::vector<std::string>& keys, const std::string& where) {
  std::size_t unknown = 0;
  for (const std::string& key : keys) {
    if (key.rfind('_', 0) == 0 || ++unknown > kMostUnknownKeys) continue;
    runtime::warn(cat(where, ": unknown key `", key.substr(0, 80), "` is ignored"));
  }
  if (unknown > kMostUnknownKeys) runtime::warn(cat(where, ": and ", unknown - kMostUnknownKeys, " more unknown keys"));
}

}  // namespace

const char* Config::class_name() const {
  return model_class == ModelClass::conditional ? "UNet2DConditionModel" : "UNet2DModel";
}

int Config::context_width() const {
  for (const auto* stages : {&down, &mid, &up}) {
    for (const Stage& stage : *stages) {
      if (stage.context > 0) return stage.context;
    }
  }
  return 0;
}

Config parse_config(const Json& json, const std::string& where) {
  ObjectReader in(json, where);
  Config c;
  c.raw = json;
  c.where = where;
  const auto name = in.required<std::string>("_class_name");
  if (name == "UNet2DConditionModel") {
    c.model_class = ModelClass::conditional;
    read_conditional(in, c);
  } else if (name == "UNet2DModel") {
    c.model_class = ModelClass::unconditional;
    read_unconditional(in, c);
  } else {
    throw input_error(where, ": `_class_name` is \"", name.substr(0, 60),
                      "\", expected UNet2DConditionModel or UNet2DModel",
                      name.starts_with("Pruned") ? "; an export of this class has its `removed_layers`" : "");
  }
  check_groups(c, where);
  check_block_count(c, where);
  warn_of_unknown(in.unread(), where);
  return c;
}

Config read_config_file(const std::filesystem::path& path) {
  const auto file = std::filesystem::is_directory(path) ? path / "config.json" : path;
  return parse_config(runtime::read_json(file), file.string());
}

}  // namespace laptopdiff::unet
