#include "pruning/presets.h"

#include "runtime/error.h"

namespace laptopdiff::pruning {
namespace {

using runtime::cat;
using runtime::usage_error;

enum class Middle { keep, drop };
enum class Deepest { keep, drop };

struct Preset {
  const char* name;
  Middle middle;
  Deepest deepest;  // the last down stage and the first up stage
};
// Kim et al., BK-SDM (2305.15798), section 3: every down stage loses its second layer, every up stage its middle one.
constexpr Preset kPresets[] = {
    {"bk-sdm-base", Middle::keep, Deepest::keep},  {"bk-sdm-small", Middle::drop, Deepest::keep},
    {"bk-sdm-tiny", Middle::drop, Deepest::drop},  {"segmind-small", Middle::keep, Deepest::keep},
    {"segmind-tiny", Middle::drop, Deepest::drop},
};

void require_two_layer_stages(const unet::Config& config, const std::string& preset) {
  for (const unet::Stage& stage : config.down) {
    if (stage.layers != 2) {
      throw usage_error("--preset ", preset, ": needs two layers in every down stage, ", stage.path, " has ",
                        stage.layers);
    }
  }
  if (config.down.size() < 2) throw usage_error("--preset ", preset, ": needs at least two stages");
}

}  // namespace

std::vector<std::string> preset_names() {
  std::vector<std::string> names;
  for (const Preset& preset : kPresets) names.emplace_back(preset.name);
  return names;
}

std::vector<unet::Removal> preset_removals(const std::string& name, const unet::Program& base) {
  const Preset* preset = nullptr;
  for (const Preset& row : kPresets) {
    if (name == row.name) preset = &row;
  }
  if (preset == nullptr) throw usage_error("unknown preset `", name, "`", runtime::did_you_mean(name, preset_names()));
  const unet::Config& config = base.config;
  require_two_layer_stages(config, name);
  const std::size_t stages = config.down.size();
  const bool deepest_goes = preset->deepest == Deepest::drop;
  std::vector<unet::Removal> removals;
  for (std::size_t i = 0; i < stages; ++i) {
    const bool gone = deepest_goes && i + 1 == stages;
    removals.push_back({gone ? config.down[i].path : config.down[i].path + ".resnets.1", unet::How::drop});
  }
  if (preset->middle == Middle::drop && !config.mid.empty()) removals.push_back({"mid_block", unet::How::drop});
  for (std::size_t i = 0; i < stages; ++i) {
    const bool gone = deepest_goes && i == 0;
    removals.push_back({gone ? config.up[i].path : config.up[i].path + ".resnets.1", unet::How::drop});
  }
  return removals;
}

}  // namespace laptopdiff::pruning
