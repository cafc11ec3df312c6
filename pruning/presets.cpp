#include "pruning/presets.h"

#include <algorithm>

#include "runtime/error.h"

namespace laptopdiff::pruning {
namespace {

using runtime::cat;
using runtime::usage_error;

enum class Layers { all, one_a_stage };  // one_a_stage: down stages keep the first, up stages the first and the last
enum class Middle { keep, first_resnet, drop };
enum class Deepest { keep, drop };  // the last down stage and the first up stage

// How many transformer blocks a stage keeps: one number for all of its layers, or one for each layer of the base.
struct Blocks {
  const char* stage;
  std::vector<int> kept;
};

struct Preset {
  const char* name;
  Layers layers;
  Middle middle;
  Deepest deepest;
  std::vector<Blocks> blocks;  // stages not named keep all of theirs
};

const std::vector<Preset>& presets() {
  static const std::vector<Preset> kRows = {
      // Kim et al., BK-SDM (2305.15798), section 3: every down stage loses its second layer, every up stage its middle
      // one.
      {"bk-sdm-base", Layers::one_a_stage, Middle::keep, Deepest::keep, {}},
      {"bk-sdm-small", Layers::one_a_stage, Middle::drop, Deepest::keep, {}},
      {"bk-sdm-tiny", Layers::one_a_stage, Middle::drop, Deepest::drop, {}},
      {"segmind-small", Layers::one_a_stage, Middle::keep, Deepest::keep, {}},
      {"segmind-tiny", Layers::one_a_stage, Middle::drop, Deepest::drop, {}},
      // Lee et al., KOALA (2312.04005): the same of SDXL, and shallower transformers.
      {"koala-1b",
       Layers::one_a_stage,
       Middle::keep,
       Deepest::keep,
       {{"down_blocks.2", {6}}, {"mid_block", {6}}, {"up_blocks.0", {6}}}},
      {"koala-700m", Layers::one_a_stage, Middle::drop, Deepest::keep, {{"down_blocks.2", {5}}, {"up_blocks.0", {5}}}},
      // Gupta et al., Segmind SSD-1B and Vega (2401.02677): all layers of SDXL, shallower transformers, and a middle
      // of one ResNet.
      {"ssd-1b",
       Layers::all,
       Middle::first_resnet,
       Deepest::keep,
       {{"down_blocks.2", {4}}, {"up_blocks.0", {4, 4, 10}}, {"up_blocks.1", {2, 1, 1}}}},
      {"segmind-vega",
       Layers::all,
       Middle::first_resnet,
       Deepest::keep,
       {{"down_blocks.1", {1}}, {"down_blocks.2", {2}}, {"up_blocks.0", {2}}, {"up_blocks.1", {1}}}},
  };
  return kRows;
}

// Writes one preset's removals, or says why the base is not the one that it was made for.
class Writer {
 public:
  Writer(const Preset& preset, const unet::Config& config) : preset_(preset), config_(config) {}

  std::vector<unet::Removal> write() {
    const std::size_t stages = config_.down.size();
    if (preset_.layers == Layers::one_a_stage) require_two_layer_stages();
    for (std::size_t i = 0; i < stages; ++i) stage(config_.down[i], i + 1 == stages);
    if (!config_.mid.empty()) middle(config_.mid.front());
    for (std::size_t i = 0; i < stages; ++i) stage(config_.up[i], i == 0);
    if (applied_ < preset_.blocks.size()) refuse("needs the stages of SDXL, with transformers in ", named_stages());
    return std::move(removals_);
  }

 private:
  template <typename... Args>
  [[noreturn]] void refuse(const Args&... why) const {
    throw usage_error("--preset ", preset_.name, ": ", why..., "; it was not made for this base");
  }

  std::string named_stages() const {
    std::vector<std::string> names;
    for (const Blocks& row : preset_.blocks) names.emplace_back(row.stage);
    return runtime::join(names);
  }

  void require_two_layer_stages() const {
    for (const unet::Stage& stage : config_.down) {
      if (stage.layers != 2) refuse("needs two layers in every down stage, ", stage.path, " has ", stage.layers);
    }
    if (config_.down.size() < 2) refuse("needs at least two stages");
  }

  void stage(const unet::Stage& stage, bool deepest) {
    if (deepest && preset_.deepest == Deepest::drop) return remove(stage.path, unet::How::drop);
    const int gone = preset_.layers == Layers::one_a_stage ? 1 : -1;
    if (gone >= 0) remove(cat(stage.path, ".resnets.", gone), unet::How::drop);
    shorten(stage, gone);
  }

  void middle(const unet::Stage& mid) {
    if (preset_.middle == Middle::drop) return remove(mid.path, unet::How::drop);
    if (preset_.middle == Middle::keep) return shorten(mid, -1);
    if (mid.attention != unet::LayerAttention::none) remove(mid.path + ".attentions.0", unet::How::bypass);
    for (int j = 1; j < mid.layers; ++j) remove(cat(mid.path, ".resnets.", j), unet::How::bypass);
  }

  // Takes the last blocks of the stage's transformers, but for that of layer `gone`.
  void shorten(const unet::Stage& stage, int gone) {
    const auto row = std::find_if(preset_.blocks.begin(), preset_.blocks.end(),
                                  [&](const Blocks& blocks) { return stage.path == blocks.stage; });
    if (row == preset_.blocks.end()) return;
    ++applied_;
    if (row->kept.size() > 1 && row->kept.size() != stage.depth.size()) {
      refuse("needs ", row->kept.size(), " transformers in ", stage.path, ", it has ", stage.depth.size());
    }
    if (stage.depth.empty()) refuse("needs transformers in ", stage.path);
    for (std::size_t j = 0; j < stage.depth.size(); ++j) {
      if (static_cast<int>(j) == gone) continue;
      const int kept = row->kept.size() == 1 ? row->kept.front() : row->kept[j], depth = stage.depth[j];
      const std::string path = cat(stage.path, ".attentions.", j);
      if (depth < kept) refuse("needs ", kept, " transformer blocks in ", path, ", it has ", depth);
      for (int k = kept; k < depth; ++k) remove(cat(path, ".transformer_blocks.", k), unet::How::bypass);
    }
  }

  void remove(std::string layer, unet::How how) { removals_.push_back({std::move(layer), how}); }

  const Preset& preset_;
  const unet::Config& config_;
  std::size_t applied_ = 0;  // rows of `blocks` whose stage is there
  std::vector<unet::Removal> removals_;
};

}  // namespace

std::vector<std::string> preset_names() {
  std::vector<std::string> names;
  for (const Preset& preset : presets()) names.emplace_back(preset.name);
  return names;
}

std::vector<unet::Removal> preset_removals(const std::string& name, const unet::Program& base) {
  for (const Preset& preset : presets()) {
    if (name == preset.name) return Writer(preset, base.config).write();
  }
  throw usage_error("unknown preset `", name, "`", runtime::did_you_mean(name, preset_names()));
}

}  // namespace laptopdiff::pruning
