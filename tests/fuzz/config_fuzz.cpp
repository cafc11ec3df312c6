// Any JSON as a U-Net's config.json: table, program, units, taps, and every handcrafted student of it.
#include "pruning/presets.h"
#include "tests/fuzz/fuzz.h"
#include "unet/config.h"
#include "unet/program.h"
#include "unet/spec.h"

namespace {

using namespace laptopdiff;
using unet::Program;

constexpr std::size_t kManySteps = 1500;  // beyond it only the base is built: a student takes several walks

bool same_steps(const Program& a, const Program& b) {
  const auto same = [](const unet::Step& x, const unet::Step& y) {
    return x.same_work(y) && x.path == y.path && x.params == y.params && x.macs == y.macs;
  };
  return std::equal(a.steps.begin(), a.steps.end(), b.steps.begin(), b.steps.end(), same);
}

void check_units(const Program& base) {
  for (const unet::Shell shell : {unet::Shell::drop, unet::Shell::keep}) {
    std::int64_t params = 0, macs = 0;
    const std::vector<unet::Unit> units = unet::find_units(base, shell);
    for (const unet::Unit& unit : units) {
      fuzz::require(unit.params >= 0 && unit.macs >= 0, "no unit frees a negative amount");
      fuzz::require(unit.first <= unit.last, "a unit is a range of steps");
      params += unit.params;
      macs += unit.macs;
    }
    fuzz::require(params <= base.params() && macs <= base.macs(), "units free no more than the model has");
    unet::find_shells(base, units);
  }
  unet::find_taps(base);
}

void check_preset(const Program& base, const std::string& name) {
  unet::Spec spec;
  spec.base = base.config;
  if (!fuzz::accepts([&] { spec.removed = pruning::preset_removals(name, base); })) return;
  Program student;
  if (!fuzz::accepts([&] { student = unet::prune(base, spec); })) return;
  fuzz::require(student.params() <= base.params() && student.macs() <= base.macs(), "a student is no larger");
  const unet::Spec again = unet::parse_spec(unet::spec_json(spec), "spec.json");
  fuzz::require(unet::same_spec(spec, again), "a student's spec written and read again is the same");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  unet::Config config;
  Program base;
  const auto read = [&] {
    config = unet::parse_config(runtime::parse_json(fuzz::text_of(data, size), "config.json"), "config.json");
    base = unet::build_base(config);
  };
  if (!fuzz::accepts(read)) return 0;
  fuzz::require(base.params() > 0 && base.macs() > 0, "a model has parameters and work");
  const unet::Config again = unet::parse_config(runtime::parse_json(config.raw.dump(), "raw"), "raw");
  fuzz::require(same_steps(base, unet::build_base(again)), "a config printed and read again is the same model");
  check_units(base);
  if (base.steps.size() > kManySteps) return 0;
  for (const std::string& name : pruning::preset_names()) check_preset(base, name);
  return 0;
}
