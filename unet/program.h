// A U-Net as a straight-line program over a stack.
//
// build_program() turns a config (and a spec of what is removed) into a flat list of steps, fine enough that every
// unit, snapshot and tap falls between two of them. A step is data: kind, diffusers module path, channels, parameters,
// multiply-accumulates. Pruning is another list; nobody edits a live model. Knows no torch.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "unet/config.h"

namespace laptopdiff::unet {

enum class StepKind {
  embed,  // timestep (and class, text_time) embeddings
  conv_in,
  push,        // copies the hidden state onto the skip stack
  pop_concat,  // takes the last skip and concatenates it behind the hidden state's channels
  resnet,
  shortcut,  // what is left of a bypassed ResNet that changes the channel count: its conv_shortcut
  shell_in,  // Transformer2DModel: norm, to tokens, proj_in
  attn1,
  attn2,
  ff,
  shell_out,  // proj_out, to an image, residual
  attention,  // plain attention with its own norm and residual (UNet2DModel)
  downsample,
  upsample,  // to the size of the skip on top of the stack (UNet2DConditionModel), or twice the size
  norm_out,
  conv_out,
};
const char* step_name(StepKind kind);

// One tensor of a step: its full diffusers name and shape.
struct Parameter {
  std::string name;
  std::vector<std::int64_t> shape;
  bool operator==(const Parameter&) const = default;
};

struct Step {
  StepKind kind;
  std::string path;     // diffusers module path in the BASE model; of push and pop_concat, that of the layer they serve
  int position = 0;     // index in the base program: equal positions of two variants of one base pair up
  int stage = -1;       // 0.. down, then mid, then up: an index into Program::stages
  int in_channels = 0;  // of the hidden state before the step
  int out_channels = 0;                // after it
  int height = 0, width = 0;           // of the image after it, for the program's geometry
  Resample resample = Resample::none;  // a ResNet that resizes (sampler of ResnetDownsample/UpsampleBlock2D)
  std::int64_t params = 0;
  std::int64_t macs = 0;  // conv + linear + both attention products, batch 1

  // Variants of one base share a step where kind and path agree.
  bool same_work(const Step& other) const { return position == other.position && kind == other.kind; }
};

// What MACs are counted for.
struct Geometry {
  int height = 0, width = 0;  // of the latent; 0: the config's sample_size, or 64 where it has none
  int tokens = 77;
};

enum class UnitKind { resnet, transformer, attention };
const char* unit_name(UnitKind kind);

// A removable layer: a named range of base steps.
struct Unit {
  std::string layer;  // diffusers path in the base; never shifts
  UnitKind kind;
  int first = 0, last = 0;            // base positions, inclusive
  std::int64_t params = 0, macs = 0;  // what leaves when it alone is bypassed
};

// A Transformer2DModel: the units that share a shell.
struct ShellGroup {
  std::string path;                 // "down_blocks.1.attentions.0"
  std::vector<int> units;           // indices into Program::units
  int shell_in = 0, shell_out = 0;  // base positions
};

struct Program {
  Config config;
  Geometry geometry;
  std::vector<Stage> stages;  // down, mid, up in execution order
  std::vector<Step> steps;
  std::int64_t params() const;
  std::int64_t macs() const;
};

// The full model. Throws Error(bad_input) where the config's channels, resolution or stack do not fit.
Program build_base(const Config& config, Geometry geometry = {});

// Throws Error(bad_input) where the network cannot run at this latent size; `what` says whose size it is.
void check_latent_size(const Config& config, std::int64_t height, std::int64_t width, const std::string& what);

// The tensors a step needs, in diffusers names. Steps without weights have none.
std::vector<Parameter> step_parameters(const Config& config, const std::vector<Stage>& stages, const Step& step);

// Removable layers in execution order, with what each frees where transformer shells are dropped (or kept).
enum class Shell { drop, keep };
std::vector<Unit> find_units(const Program& base, Shell shell = Shell::drop);
std::vector<ShellGroup> find_shells(const Program& base, const std::vector<Unit>& units);

// The step that a bypassed ResNet or plain attention leaves behind, which is the layer with its branch zeroed: the
// conv_shortcut and the division by the stage's output_scale; nothing where that is the identity.
std::optional<Step> bypassed_layer(const Program& base, const Step& layer);

// Walks the steps symbolically: channels, resolution and stack must agree from step to step.
// Throws Error(bad_input) naming the step that does not fit. Fills in every step's size, params and macs.
void check_program(Program& program);

// A named module output: the hidden state after a base position. "down_blocks.0", "mid_block",
// "up_blocks.1.attentions.0.transformer_blocks.0", "conv_in", ...
struct Tap {
  std::string path;
  int position;
};
std::vector<Tap> find_taps(const Program& base);

}  // namespace laptopdiff::unet
