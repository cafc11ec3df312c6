#include "pruning/removables.h"

namespace laptopdiff::pruning {

const std::string& Removables::name(std::int64_t row) const {
  const auto index = static_cast<std::size_t>(row);
  return index < units.size() ? units[index].layer : shells[index - units.size()].path;
}

Removables find_removables(const unet::Program& base, unet::Shell shell) {
  Removables found;
  found.units = unet::find_units(base, shell);
  unet::Spec spec;
  spec.base = base.config;
  spec.shell = shell;
  const auto add = [&](const std::string& layer) {
    spec.removed = {{layer, unet::How::bypass}};
    found.without.push_back(unet::prune(base, spec));
  };
  for (const unet::Unit& unit : found.units) add(unit.layer);
  if (shell == unet::Shell::keep) return found;
  for (const unet::ShellGroup& group : unet::find_shells(base, found.units)) {
    if (group.units.size() < 2) continue;
    add(group.path);
    found.shells.push_back(group);
  }
  return found;
}

}  // namespace laptopdiff::pruning
