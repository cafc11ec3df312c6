#include "unet/fates.h"

#include <set>
#include <string>
#include <utility>

namespace laptopdiff::unet {

const char* fate_name(Fate fate) {
  switch (fate) {
    case Fate::kept: return "kept";
    case Fate::partly: return "partly removed";
    case Fate::bypassed: return "bypassed";
    case Fate::dropped: return "dropped";
  }
  return "";
}

std::vector<Fate> fates(const Program& base, const std::vector<Unit>& units, const Spec& spec) {
  std::set<std::pair<int, StepKind>> present;
  for (const Step& step : prune(base, spec).steps) present.emplace(step.position, step.kind);
  std::set<std::string> bypassed;
  for (const Removal& removal : canonical_removals(base, spec)) {
    if (removal.how == How::bypass) bypassed.insert(removal.layer);
  }
  std::vector<Fate> result;
  for (const Unit& unit : units) {
    int there = 0;
    for (int position = unit.first; position <= unit.last; ++position) {
      there += present.contains({position, base.steps[static_cast<std::size_t>(position)].kind}) ? 1 : 0;
    }
    const bool parts = bypassed.contains(unit.layer + ".attn1") || bypassed.contains(unit.layer + ".ff");
    if (there == unit.last - unit.first + 1) result.push_back(Fate::kept);
    else if (there > 0) result.push_back(Fate::partly);
    else result.push_back(bypassed.contains(unit.layer) || parts ? Fate::bypassed : Fate::dropped);
  }
  return result;
}

}  // namespace laptopdiff::unet
