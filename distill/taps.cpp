#include "distill/taps.h"

#include <algorithm>
#include <map>
#include <set>

#include "runtime/error.h"

namespace laptopdiff::distill {
namespace {

using unet::Program;
using unet::Step;
using unet::StepKind;

bool is_skip_step(const Step& step) {
  return step.kind == StepKind::push || step.kind == StepKind::pop_concat || step.kind == StepKind::embed;
}

// Where each stage ends in a program, and where its last transformer ends.
struct StageEnds {
  std::set<int> present;             // stages with any step, if only a skip
  std::map<int, int> last;           // stage -> last position that computes
  std::map<int, bool> sampler;       // stage -> has its down- or up-sampler
  std::map<int, TapPoint> proj_out;  // stage -> its last proj_out
};

StageEnds stage_ends(const Program& program) {
  StageEnds ends;
  int before_shell = -1;
  for (const Step& step : program.steps) {
    if (step.stage < 0) continue;
    ends.present.insert(step.stage);
    if (is_skip_step(step)) continue;
    ends.last[step.stage] = step.position;
    if (step.path.find("samplers.0") != std::string::npos) ends.sampler[step.stage] = true;
    if (step.kind == StepKind::shell_in) before_shell = step.position - 1;
    if (step.kind == StepKind::shell_out) ends.proj_out[step.stage] = {step.position, before_shell};
  }
  return ends;
}

enum class StageKind { down, mid, up };

StageKind kind_of(const Program& program, int stage) {
  const std::string& path = program.stages[static_cast<std::size_t>(stage)].path;
  return path == "mid_block" ? StageKind::mid : path.rfind("down", 0) == 0 ? StageKind::down : StageKind::up;
}

std::vector<TapPair> stage_pairs(const Program& teacher, const Program& student, bool handcrafted) {
  const StageEnds full = stage_ends(teacher), left = stage_ends(student);
  std::vector<TapPair> pairs;
  int last_missing_up = -1;
  for (const auto& [stage, end] : full.last) {
    if (kind_of(teacher, stage) == StageKind::up && !left.present.contains(stage)) last_missing_up = stage;
  }
  for (const auto& [stage, end] : full.last) {
    if (!left.present.contains(stage)) continue;
    const StageKind kind = kind_of(teacher, stage);
    if (kind == StageKind::mid && handcrafted) continue;  // BK-SDM does not hook the middle, even where it is kept
    const std::string& path = teacher.stages[static_cast<std::size_t>(stage)].path;
    const bool lost_sampler = full.sampler.contains(stage) && !left.sampler.contains(stage);
    if (!lost_sampler) {
      pairs.push_back({path, {end}, {end}});
    } else if (handcrafted && full.proj_out.contains(stage) && left.proj_out.contains(stage)) {
      pairs.push_back({path + ".proj_out", full.proj_out.at(stage), left.proj_out.at(stage)});
    } else if (last_missing_up >= 0) {
      pairs.push_back(
          {teacher.stages[static_cast<std::size_t>(last_missing_up)].path, {full.last.at(last_missing_up)}, {end}});
    }
  }
  return pairs;
}

std::vector<TapPair> unit_pairs(const Program& teacher, const Program& student) {
  std::set<std::pair<int, StepKind>> left;
  for (const Step& step : student.steps) left.emplace(step.position, step.kind);
  std::vector<TapPair> pairs;
  for (const unet::Unit& unit : unet::find_units(teacher)) {
    const Step& last = teacher.steps[static_cast<std::size_t>(unit.last)];
    if (left.contains({last.position, last.kind})) pairs.push_back({unit.layer, {unit.last}, {unit.last}});
  }
  return pairs;
}

}  // namespace

std::vector<std::string> tap_set_names() { return {"bk", "blocks", "units"}; }

std::vector<TapPair> tap_pairs(const std::string& set, const Program& teacher, const Program& student) {
  std::vector<TapPair> pairs;
  if (set == "bk") pairs = stage_pairs(teacher, student, true);
  else if (set == "blocks") pairs = stage_pairs(teacher, student, false);
  else if (set == "units") pairs = unit_pairs(teacher, student);
  else throw runtime::usage_error("unknown taps `", set, "`", runtime::did_you_mean(set, tap_set_names()));
  if (pairs.empty()) throw runtime::usage_error("taps `", set, "`: teacher and student have no point in common");
  return pairs;
}

}  // namespace laptopdiff::distill
