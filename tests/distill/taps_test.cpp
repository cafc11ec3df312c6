#include "distill/taps.h"

#include <torch/types.h>

#include "pruning/presets.h"
#include "tests/support/models.h"
#include "tests/support/thrown.h"
#include "unet/spec.h"

#include <doctest/doctest.h>

using namespace laptopdiff;
using unet::How;

namespace {

unet::Program student_of(const unet::Program& base, std::vector<unet::Removal> removed) {
  unet::Spec spec;
  spec.base = base.config;
  spec.removed = std::move(removed);
  return unet::prune(base, spec);
}

std::vector<std::string> names(const std::vector<distill::TapPair>& pairs) {
  std::vector<std::string> list;
  for (const auto& pair : pairs) list.push_back(pair.name);
  return list;
}

unet::Program sd15() {
  return unet::build_base(unet::parse_config(
      {{"_class_name", "UNet2DConditionModel"}, {"sample_size", 64}, {"cross_attention_dim", 768}}, "sd"));
}

}  // namespace

TEST_CASE("BK-SDM base and small hook the eight outer stages, tiny six points") {
  const unet::Program base = sd15();
  const std::vector<std::string> eight = {"down_blocks.0", "down_blocks.1", "down_blocks.2", "down_blocks.3",
                                          "up_blocks.0",   "up_blocks.1",   "up_blocks.2",   "up_blocks.3"};
  for (const char* preset : {"bk-sdm-base", "bk-sdm-small"}) {
    CHECK(names(distill::tap_pairs("bk", base, student_of(base, pruning::preset_removals(preset, base)))) == eight);
  }
  const auto tiny = distill::tap_pairs("bk", base, student_of(base, pruning::preset_removals("bk-sdm-tiny", base)));
  CHECK(names(tiny) == std::vector<std::string>{"down_blocks.0", "down_blocks.1", "down_blocks.2.proj_out",
                                                "up_blocks.1", "up_blocks.2", "up_blocks.3"});
  // Teacher: attentions.1; student: attentions.0, the last it has (block_removal.md, section 3).
  CHECK(base.steps[static_cast<std::size_t>(tiny[2].teacher.position)].path == "down_blocks.2.attentions.1");
  CHECK(base.steps[static_cast<std::size_t>(tiny[2].student.position)].path == "down_blocks.2.attentions.0");
  CHECK(tiny[2].teacher.minus == tiny[2].teacher.position - 5);
}

TEST_CASE("Segmind tiny pairs the deepest down stage with the teacher's first up stage") {
  const unet::Program base = sd15();
  const auto pairs =
      distill::tap_pairs("blocks", base, student_of(base, pruning::preset_removals("segmind-tiny", base)));
  CHECK(names(pairs) == std::vector<std::string>{"down_blocks.0", "down_blocks.1", "up_blocks.0", "up_blocks.1",
                                                 "up_blocks.2", "up_blocks.3"});
  const auto small =
      distill::tap_pairs("blocks", base, student_of(base, pruning::preset_removals("segmind-small", base)));
  CHECK(small.size() == 9);
}

TEST_CASE("bypassed students pair every stage, and units pair what both have") {
  const unet::Program base = sd15();
  const auto units = unet::find_units(base);
  const unet::Program student = student_of(base, {{units[3].layer, How::bypass}, {units[20].layer, How::bypass}});
  CHECK(distill::tap_pairs("blocks", base, student).size() == 9);
  CHECK(distill::tap_pairs("units", base, student).size() == 36);
}

TEST_CASE("an unknown tap set names the known ones") {
  const unet::Program base = sd15();
  const auto thrown = test::thrown_by([&] { distill::tap_pairs("block", base, base); });
  CHECK(thrown.code == runtime::ExitCode::usage);
  CHECK(thrown.says("blocks"));
}
