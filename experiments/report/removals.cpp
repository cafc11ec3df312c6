#include "experiments/report/removals.h"

#include <algorithm>
#include <map>

#include "runtime/error.h"

namespace laptopdiff::report {
namespace {

using runtime::cat;

std::string letter_of(std::size_t index) {
  const std::string letter(1, static_cast<char>('A' + index % 26));
  return index < 26 ? letter : letter + std::to_string(index / 26 + 1);
}

const unet::Config* base_config(const StudyResults& results) {
  if (results.scores) return &results.scores->base;
  for (const Arm& arm : results.arms) {
    if (arm.spec) return &arm.spec->base;
  }
  return nullptr;
}

}  // namespace

int SpecGroup::removed() const {
  return static_cast<int>(
      std::count_if(fates.begin(), fates.end(), [](unet::Fate fate) { return fate != unet::Fate::kept; }));
}

std::optional<Pruning> pruning_of(const StudyResults& results, const std::vector<Setting>& settings) {
  const unet::Config* config = base_config(results);
  if (config == nullptr) return std::nullopt;
  Pruning pruning;
  pruning.base = unet::build_base(*config);
  pruning.units = unet::find_units(pruning.base, results.scores ? results.scores->shell : unet::Shell::drop);
  std::map<std::string, std::size_t> known;
  for (const Setting& setting : settings) {
    const auto& spec = setting.first().spec;
    if (!spec) continue;
    if (unet::comparable_config(spec->base) != unet::comparable_config(*config)) {
      throw runtime::input_error("report: the spec of arm ", setting.first().name,
                                 " has another base than the study's scores");
    }
    const auto [entry, is_new] = known.emplace(unet::spec_digest(*spec), pruning.specs.size());
    if (is_new) {
      SpecGroup group;
      group.letter = letter_of(pruning.specs.size());
      group.spec = &*spec;
      group.fates = unet::fates(pruning.base, pruning.units, *spec);
      group.params = setting.params;
      group.macs = setting.macs;
      pruning.specs.push_back(std::move(group));
    }
    pruning.specs[entry->second].labels.push_back(setting.label);
  }
  return pruning;
}

std::string short_name(const Pruning& pruning, std::size_t index) {
  const unet::Unit& unit = pruning.units[index];
  const unet::Step& step = pruning.base.steps[static_cast<std::size_t>(unit.first)];
  std::string name = unit.layer;
  if (step.stage >= 0) name = name.substr(pruning.base.stages[static_cast<std::size_t>(step.stage)].path.size() + 1);
  const std::size_t block = name.find(".transformer_blocks.");
  if (block == std::string::npos) return name;
  const std::string shell = unit.layer.substr(0, unit.layer.find(".transformer_blocks."));
  const auto siblings = std::count_if(pruning.units.begin(), pruning.units.end(), [&](const unet::Unit& other) {
    return other.layer.rfind(shell + ".transformer_blocks.", 0) == 0;
  });
  return siblings == 1 ? name.substr(0, block) : cat(name.substr(0, block), " block ", name.substr(block + 20));
}

}  // namespace laptopdiff::report
