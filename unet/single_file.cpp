#include "unet/single_file.h"

#include <algorithm>
#include <optional>
#include <set>

#include "runtime/error.h"
#include "unet/native_config.h"
#include "unet/original_names.h"

namespace laptopdiff::unet {
namespace fs = std::filesystem;
namespace {

using runtime::cat;
using runtime::input_error;
using runtime::Json;
using runtime::SafetensorsFile;
using runtime::Shape;

constexpr int kSd1Heads = 8;
constexpr int kUsualKernel = 3;    // of conv_in and conv_out
constexpr int kHeadChannels = 64;  // of SD 2 and XL
constexpr int kSd2Context = 1024;
constexpr int kTimeIds = 6;  // text_time: two sizes and a corner
constexpr int kTimeIdChannels = 256;

// One stage as its tensors show it.
struct StageShape {
  int layers = 0;
  std::vector<int> depth;  // one a layer; empty: no attention

  bool has_attention() const { return !depth.empty(); }
  bool uniform() const {
    return std::all_of(depth.begin(), depth.end(), [&](int d) { return d == depth.front(); });
  }
};

struct UNetShape {
  std::vector<int> widths;
  std::vector<StageShape> down, up;  // `up` from the latent's side, as in the names
  int mid_layers = 0;
  std::optional<int> mid_depth;  // nothing: no attention in the middle
};

class Reader {
 public:
  Reader(const TensorViews& tensors, const std::string& where) : tensors_(tensors), where_(where) {}

  UNetShape read() const {
    UNetShape net;
    const int stages = children("up_blocks.");
    if (stages == 0 || children("down_blocks.") != stages) {
      throw input_error(where_, ": ", children("down_blocks."), " down stages and ", stages,
                        " up stages, expected equally many");
    }
    for (int i = 0; i < stages; ++i) {
      net.down.push_back(stage(cat("down_blocks.", i)));
      net.up.push_back(stage(cat("up_blocks.", i)));
      net.widths.push_back(size(cat("up_blocks.", stages - 1 - i, ".resnets.0.conv1.weight"), 0));
    }
    net.mid_layers = children("mid_block.resnets.");
    if (children("mid_block.attentions.") > 0) net.mid_depth = children("mid_block.attentions.0.transformer_blocks.");
    check_layers(net);
    return net;
  }

  bool has(const std::string& name) const { return tensors_.contains(name); }

  int size(const std::string& name, std::size_t dimension) const {
    const Shape& shape = at(name);
    if (shape.size() <= dimension || shape[dimension] < 1 || shape[dimension] > (1 << 20)) {
      throw input_error(where_, ": ", name, " is ", runtime::shape_text(shape), ", which no U-Net has");
    }
    return static_cast<int>(shape[dimension]);
  }

  // The first tensor whose name ends so, where there is one.
  std::optional<std::string> find_ending(std::string_view ending) const {
    for (const auto& [name, view] : tensors_) {
      if (name.ends_with(ending)) return name;
    }
    return std::nullopt;
  }

  std::size_t rank(const std::string& name) const { return at(name).size(); }
  const std::string& where() const { return where_; }

 private:
  const Shape& at(const std::string& name) const {
    const auto found = tensors_.find(name);
    if (found == tensors_.end()) throw input_error(where_, ": ", name, " is missing");
    return found->second.shape;
  }

  // How many numbered modules lie below `prefix`; they must be 0, 1, 2, ...
  int children(const std::string& prefix) const {
    std::set<std::string_view> numbers;
    for (auto entry = tensors_.lower_bound(prefix); entry != tensors_.end(); ++entry) {
      const std::string_view name = entry->first;
      if (!name.starts_with(prefix)) break;
      numbers.insert(name.substr(prefix.size(), name.find('.', prefix.size()) - prefix.size()));
    }
    for (std::size_t i = 0; i < numbers.size(); ++i) {
      if (!numbers.contains(std::to_string(i))) {
        throw input_error(where_, ": ", prefix, i, " is missing, but there are ", numbers.size(),
                          " such modules; no config.json says such a U-Net");
      }
    }
    return static_cast<int>(numbers.size());
  }

  StageShape stage(const std::string& path) const {
    StageShape stage;
    stage.layers = children(path + ".resnets.");
    const int attentions = children(path + ".attentions.");
    if (attentions != 0 && attentions != stage.layers) {
      throw input_error(where_, ": ", path, " has ", stage.layers, " ResNets and ", attentions,
                        " attentions; no config.json says such a U-Net");
    }
    for (int j = 0; j < attentions; ++j) {
      stage.depth.push_back(children(cat(path, ".attentions.", j, ".transformer_blocks.")));
    }
    return stage;
  }

  void check_layers(const UNetShape& net) const {
    const std::size_t n = net.widths.size();
    for (std::size_t i = 0; i < n; ++i) {
      const int down = net.down[i].layers, up = net.up[n - 1 - i].layers;
      if (up == down + 1) continue;
      throw input_error(where_, ": down_blocks.", i, " has ", down, " ResNets, so up_blocks.", n - 1 - i, " needs ",
                        down + 1, ", it has ", up);
    }
    if (net.mid_layers != (net.mid_depth ? 2 : std::min(net.mid_layers, 1))) {
      throw input_error(where_, ": a middle of ", net.mid_layers, " ResNets ",
                        net.mid_depth ? "around an attention" : "without attention", " is not supported");
    }
  }

  const TensorViews& tensors_;
  const std::string& where_;
};

// The depth all transformers of a stage's two sides (and the middle, for the last) share; nothing where they differ.
std::optional<std::vector<int>> plain_depths(const UNetShape& net) {
  const std::size_t n = net.widths.size();
  std::vector<int> depths;
  for (std::size_t i = 0; i < n; ++i) {
    std::set<int> found;
    for (const StageShape* side : {&net.down[i], &net.up[n - 1 - i]}) {
      if (!side->uniform()) return std::nullopt;
      if (side->has_attention()) found.insert(side->depth.front());
    }
    if (i + 1 == n && net.mid_depth) found.insert(*net.mid_depth);
    if (found.size() > 1) return std::nullopt;
    depths.push_back(found.empty() ? 1 : *found.begin());
  }
  return depths;
}

void set_depths(Json& config, const UNetShape& net, const std::string& where) {
  if (const auto plain = plain_depths(net)) {
    if (std::any_of(plain->begin(), plain->end(), [](int d) { return d != 1; })) {
      config["transformer_layers_per_block"] = *plain;
    }
    return;
  }
  Json down = Json::array(), up = Json::array();
  for (const StageShape& stage : net.down) down.push_back(stage.has_attention() ? Json(stage.depth) : Json(1));
  for (const StageShape& stage : net.up) up.push_back(stage.has_attention() ? Json(stage.depth) : Json(1));
  if (net.mid_depth) {
    // diffusers takes the middle's depth from the last down stage.
    const StageShape& last = net.down.back();
    if (!last.has_attention()) down.back() = *net.mid_depth;
    else if (last.depth.front() != *net.mid_depth) {
      throw input_error(where, ": the middle has ", *net.mid_depth, " transformer blocks, the last down stage ",
                        last.depth.front(), "; no config.json says such a U-Net");
    }
  }
  config["transformer_layers_per_block"] = down;
  config["reverse_transformer_layers_per_block"] = up;
}

void set_blocks(Json& config, const UNetShape& net) {
  Json down = Json::array(), up = Json::array();
  std::vector<int> layers;
  for (const StageShape& stage : net.down) {
    down.push_back(stage.has_attention() ? "CrossAttnDownBlock2D" : "DownBlock2D");
    layers.push_back(stage.layers);
  }
  for (const StageShape& stage : net.up) up.push_back(stage.has_attention() ? "CrossAttnUpBlock2D" : "UpBlock2D");
  config["block_out_channels"] = net.widths;
  config["down_block_types"] = down;
  config["up_block_types"] = up;
  config["layers_per_block"] = one_or_list(layers);
  if (net.mid_layers == 0) config["mid_block_type"] = nullptr;
  if (net.mid_layers == 1) config["mid_block_type"] = "UNetMidBlock2D";
}

void set_heads(Json& config, const UNetShape& net, const std::string& where) {
  std::vector<int> heads;
  for (const int width : net.widths) {
    if (width % kHeadChannels != 0) {
      throw input_error(where, ": ", width, " channels are no multiple of ", kHeadChannels,
                        ", so the number of attention heads cannot be told; use the model's diffusers folder");
    }
    heads.push_back(width / kHeadChannels);
  }
  config["attention_head_dim"] = heads;
}

void set_text_time(Json& config, int width, const std::string& where) {
  const int pooled = width - kTimeIds * kTimeIdChannels;
  if (pooled <= 0 || config.value("cross_attention_dim", 0) == kSd2Context) {
    throw input_error(where, ": label_emb of width ", width, " is not SD XL's (pooled text and ", kTimeIds,
                      " sizes of ", kTimeIdChannels, "); use the model's diffusers folder");
  }
  config["addition_embed_type"] = "text_time";
  config["addition_time_embed_dim"] = kTimeIdChannels;
  config["projection_class_embeddings_input_dim"] = width;
}

// What all models of this layout share; the keys that SD 1's config.json has.
Json shared_config() {
  return {{"_class_name", "UNet2DConditionModel"},
          {"act_fn", "silu"},
          {"attention_head_dim", kSd1Heads},
          {"center_input_sample", false},
          {"downsample_padding", 1},
          {"flip_sin_to_cos", true},
          {"freq_shift", 0},
          {"mid_block_scale_factor", 1},
          {"norm_eps", 1e-5},
          {"norm_num_groups", 32},
          {"sample_size", 64}};
}

}  // namespace

fs::path spec_beside(const fs::path& file) {
  const fs::path spec = file.parent_path() / "spec.json";
  return file.filename() == kSingleFileName && fs::exists(spec) ? spec : fs::path();
}

fs::path single_file_of(const fs::path& path) {
  for (const char* other : {"config.json", "model_index.json"}) {
    if (fs::exists(path / other)) return path;
  }
  const fs::path file = path / kSingleFileName;
  return fs::is_directory(path) && is_single_file(file) && !spec_beside(file).empty() ? file : path;
}

bool is_single_file(const fs::path& path) { return fs::is_regular_file(path) && path.extension() != ".json"; }

std::shared_ptr<const SafetensorsFile> open_single_file(const fs::path& path) {
  if (path.extension() != ".safetensors" && !runtime::is_pickled(path)) {
    throw input_error(path.string(), ": expected a model folder, a config.json or a .safetensors checkpoint");
  }
  return SafetensorsFile::open(path);
}

bool is_bare_unet(const SafetensorsFile& file) {
  return !file.has_below(kUNetPrefix) && file.tensors().contains("input_blocks.0.0.weight");
}

TensorViews single_file_unet(const SafetensorsFile& file) {
  const bool prefixed = file.has_below(kUNetPrefix);
  if (!prefixed && !is_bare_unet(file)) {
    const bool diffusers = file.tensors().contains("conv_in.weight") || file.tensors().contains("unet.conv_in.weight");
    throw input_error(file.path().string(), ": no U-Net in original names (", kUNetPrefix, "...)",
                      diffusers ? "; its names are diffusers': give the folder that holds it and its config.json" : "");
  }
  TensorViews tensors;
  std::vector<std::string> unknown;
  for (const auto& [name, view] : file.tensors()) {
    if (prefixed && !name.starts_with(kUNetPrefix)) continue;
    const auto renamed = diffusers_unet_name(std::string_view(name).substr(prefixed ? kUNetPrefix.size() : 0));
    if (!renamed || !tensors.emplace(*renamed, view).second) unknown.push_back(name);
  }
  if (!unknown.empty()) {
    throw input_error(file.path().string(), ": ", unknown.size(),
                      " tensors have no place in a Stable Diffusion U-Net: ", runtime::listing(unknown));
  }
  return tensors;
}

Json config_from_tensors(const TensorViews& tensors, const std::string& where) {
  const Reader reader(tensors, where);
  const UNetShape net = reader.read();
  Json config = shared_config();
  config["in_channels"] = reader.size("conv_in.weight", 1);
  config["out_channels"] = reader.size("conv_out.weight", 0);
  set_blocks(config, net);
  set_depths(config, net, where);
  if (const auto key = reader.find_ending("attn2.to_k.weight")) config["cross_attention_dim"] = reader.size(*key, 1);
  for (const char* conv : {"conv_in", "conv_out"}) {
    if (const auto side = reader.size(cat(conv, ".weight"), 2); side != kUsualKernel)
      config[cat(conv, "_kernel")] = side;
  }
  if (reader.has("time_embedding.cond_proj.weight"))
    config["time_cond_proj_dim"] = reader.size("time_embedding.cond_proj.weight", 1);
  const bool is_xl = reader.has("add_embedding.linear_1.weight");
  const auto projection = reader.find_ending(".proj_in.weight");
  const bool is_linear = projection && reader.rank(*projection) == 2;
  if (is_linear) config["use_linear_projection"] = true;
  if (is_linear || is_xl) set_heads(config, net, where);
  if (reader.has("class_embedding.weight")) config["num_class_embeds"] = reader.size("class_embedding.weight", 0);
  if (is_xl) {
    set_text_time(config, reader.size("add_embedding.linear_1.weight", 1), where);
    config["sample_size"] = 128;
  }
  return config;
}

}  // namespace laptopdiff::unet
