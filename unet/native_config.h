// What a diffusers class can say about a pruned U-Net in its own config, and how it numbers the layers then.
//
// UNet2DConditionModel's config knows fewer layers in a stage (a down stage and its mirrored up stage together), stages
// without attention, the depth of each transformer, and a smaller or absent middle; UNet2DModel's a part of that. A
// removal outside these (an identity or shortcut-only ResNet, one attention of a stage) has no native config.
// Knows no torch.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "unet/program.h"

namespace laptopdiff::unet {

// A number for each stage as diffusers' configs write it: one where all are equal.
Json one_or_list(const std::vector<int>& values);

// Two programs that compute the same from the same numbers, tensor by tensor.
struct Match {
  std::map<std::string, std::string> names;  // tensor of the second -> tensor of the first
  std::string difference;                    // empty: they match; else the first thing in which they do not
  bool matches() const { return difference.empty(); }
};
// Compares settings, steps and shapes; paths may differ. The programs must be of one geometry.
Match match_programs(const Program& first, const Program& second);

struct NativeForm {
  Config config;                                  // builds the pruned network without a spec
  std::map<std::string, std::string> base_names;  // its tensors -> theirs in the base
  std::string why_not;                            // not empty: there is no such config, and this is the reason
  bool exists() const { return why_not.empty(); }
};

// `pruned` is a variant of `base`. The form, where it exists, is checked: its own program matches `pruned`.
NativeForm native_form(const Program& base, const Program& pruned);

}  // namespace laptopdiff::unet
