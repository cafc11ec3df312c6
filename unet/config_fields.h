// What the readers of a U-Net's config.json share: checked fields, per-stage lists, the table of block types.
//
// Used by config.cpp, conditional_config.cpp (UNet2DConditionModel) and unconditional_config.cpp (UNet2DModel). Every
// function throws Error(bad_input) with the file and the field's name.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "runtime/json.h"
#include "unet/config.h"

namespace laptopdiff::unet {

// Far beyond any published model; they bound what a hostile config can ask for.
constexpr int kMaxStages = 16;
constexpr int kMaxLayers = 64;
constexpr int kMaxDepth = 256;
constexpr int kMaxWidth = 1 << 20;
constexpr int kMaxKernel = 127;

Activation parse_activation(std::string name, const std::string& where);

// `value`, which must lie from `low` to `high`.
int checked(int value, int low, int high, const std::string& where, const std::string& key);

int positive(runtime::ObjectReader& in, const std::string& key, int fallback);

// A scale to divide by; 1 where it is not given.
double nonzero(runtime::ObjectReader& in, const std::string& key);

// A value that must be one of a few; everything else in this field changes the maths and is not supported.
void require_default(runtime::ObjectReader& in, const std::string& key, const std::vector<Json>& accepted);

// An int or a list of n ints, as diffusers' `int | tuple[int]`; the same of flags.
std::vector<int> per_stage(runtime::ObjectReader& in, const std::string& key, int fallback, std::size_t n);
std::vector<bool> flags_per_stage(runtime::ObjectReader& in, const std::string& key, std::size_t n);

// What a block type of diffusers' tables is made of.
struct BlockType {
  const char* name;
  LayerAttention attention;
  Resample sampler;
  bool scaled;  // follows resnet_skip_time_act and resnet_out_scale_factor
};

const BlockType& down_block_type(const std::string& name, ModelClass model_class, const std::string& where);
const BlockType& up_block_type(const std::string& name, ModelClass model_class, const std::string& where);

// A stage without what the two classes fill in differently. The last of a direction has no sampler.
Stage make_stage(const std::string& path, const BlockType& type, int channels, int layers, bool last);

// Plain attention: attention_head_dim is the head size here (0, which stands for null: one head of full width).
void set_plain_heads(Stage& stage, int head_dim, const std::string& where);

// block_out_channels, down_block_types and up_block_types, equally many.
struct StageLists {
  std::vector<int> widths;
  std::vector<std::string> down_types, up_types;
};
StageLists read_stage_lists(runtime::ObjectReader& in, const std::vector<int>& widths,
                            const std::vector<std::string>& down, const std::vector<std::string>& up);

// The fields that both classes share; the defaults that differ follow c.model_class.
void read_common(runtime::ObjectReader& in, Config& c, const std::vector<int>& widths);
void read_class_embedding(runtime::ObjectReader& in, Config& c);

// Everything that one class alone has: its stages, its middle, its embeddings.
void read_conditional(runtime::ObjectReader& in, Config& c);
void read_unconditional(runtime::ObjectReader& in, Config& c);

}  // namespace laptopdiff::unet
