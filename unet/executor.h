// Runs steps on a state.
//
// A step never writes to a tensor that another State can see, so a copy of a State is a snapshot that costs nothing.
// All maths goes through autograd-aware ATen calls: the same executor trains students. One made for inference runs the
// same steps on weights laid out for the device, with fused layers where there are some.
#pragma once

#include <ATen/core/Tensor.h>

#include <array>
#include <functional>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "runtime/tensors.h"
#include "unet/group_norm.h"
#include "unet/packed_layers.h"
#include "unet/packed_upsample.h"
#include "unet/program.h"

namespace laptopdiff::unet {

using runtime::TensorMap;

// B batch, C channels, H/W latent size, T text tokens, D text width. Undefined tensors mean "not given".
struct Inputs {
  at::Tensor sample;                 // [B, C, H, W]
  at::Tensor timestep;               // [B], int64 or float
  at::Tensor encoder_hidden_states;  // [B, T, D]; needed where the model has transformers
  at::Tensor text_embeds;            // [B, P]; text_time models
  at::Tensor time_ids;               // [B, 6]; text_time models
  at::Tensor class_labels;  // [B] int64 (table), [B] float (timestep), [B, D] (projection, simple_projection, identity)
  at::Tensor timestep_cond;  // [B, Q]; models with time_cond_proj_dim

  std::int64_t batch() const { return sample.size(0); }
};

// Inputs from a tensor file: keys as above, unknown keys refused, shapes checked against the config, batch sizes equal.
// A calibration set's `noise` is left alone. Throws Error(bad_input).
Inputs inputs_from(const TensorMap& tensors, const Config& config, const std::string& where);
TensorMap inputs_map(const Inputs& inputs);
// Rows [begin, end).
Inputs slice(const Inputs& inputs, std::int64_t begin, std::int64_t end);
Inputs clone(const Inputs& inputs);
// Floats as `dtype` on `device`; timestep, time_ids and class_labels keep theirs.
Inputs to(const Inputs& inputs, at::ScalarType dtype, at::Device device);

struct State {
  at::Tensor hidden;  // image [B, C, H, W], or tokens [B, HW, C] inside a shell
  std::vector<at::Tensor> skips;
  at::Tensor residual;                 // a shell's input, until its shell_out
  at::Tensor embedding;                // [B, E]: time embedding
  at::Tensor embedding_act;            // [B, E]: activation(embedding), shared by all ResNets
  at::Tensor context;                  // [B, T, D]
  std::int64_t height = 0, width = 0;  // of the image that the tokens came from
};

// Called after a tapped position with the module's path and the hidden state.
using TapSink = std::function<void(const std::string& path, const at::Tensor& hidden)>;

class ForwardGraphs;

class Executor {
 public:
  // Binds the weights of every step of `program` (a base program or a variant). The tensors are shared: an optimiser
  // that updates them in place updates this executor. Throws Error(bad_input) where one is missing or misshapen.
  Executor(const Program& program, const TensorMap& weights);

  // For inference alone: takes the weights over and lays them out for the device, one by one, so that a caller who
  // moved the last copy in holds nothing twice. On the CPU they are packed for its matrix kernels (packed_layers.h), on
  // a GPU images and weights are channels-last and the layers between matrix products fused (gpu_ops.h); there
  // forward() without taps is recorded as a graph when the same steps meet inputs of the same shapes again
  // (forward_graphs.h). It is a choice of the caller and not made in passing, because such weights are frozen and know
  // no gradients. Outputs equal the plain executor's within the rounding of the type, and do not depend on threads;
  // where there is no such layout this is the plain executor. On the CPU it also has the process's malloc give blocks
  // of 4 MiB and more pages of their own (glibc).
  static Executor for_inference(const Program& program, TensorMap weights);

  // The state before the first step. Checks that the inputs have what the config needs.
  State start(const Inputs& inputs) const;
  void run(const Step& step, State& state) const;

  // The whole program. `taps` names positions to report; see find_taps.
  at::Tensor forward(const Inputs& inputs) const;
  at::Tensor forward(const Inputs& inputs, const std::vector<Tap>& taps, const TapSink& sink) const;
  // Of a variant of this executor's program, on the same weights.
  at::Tensor forward(const Program& variant, const Inputs& inputs) const;

  const Program& program() const { return program_; }

 private:
  using Weights = std::unordered_map<std::string, at::Tensor>;  // of a step; name below the step's path
  enum class Layout { plain, cpu, gpu };

  Layout best_layout() const;
  void lay_out_for_cpu(const Step& step, Weights& own) const;
  void lay_out_for_gpu(const Step& step, Weights& own) const;
  const at::Tensor& weight(const Step& step, const std::string& name) const;
  at::Tensor bias(const Step& step, const std::string& prefix) const;  // undefined where the layer has none
  // A layer's output, with `residual` added where it is defined.
  at::Tensor linear(const Step& step, const std::string& name, const at::Tensor& input,
                    const at::Tensor& residual = {}) const;
  at::Tensor conv(const Step& step, const std::string& name, const at::Tensor& image,
                  const at::Tensor& residual = {}) const;
  // The image made `height` x `width`, then convolved.
  at::Tensor upsample(const Step& step, const at::Tensor& image, std::int64_t height, std::int64_t width) const;
  // Where an executor for inference keeps an up-sampler's kernels for twice the size, beside the one for any size.
  static std::string folded_name(std::size_t which) { return "conv.folded." + std::to_string(which); }
  ConvShape conv_shape(const Step& step, const at::Tensor& kernel) const;
  // `norm` comes with what is fused into it; the layer's gain and bias are filled in here.
  at::Tensor group_norm(const Step& step, const std::string& name, const at::Tensor& image, GroupNorm norm) const;
  at::Tensor activate(const at::Tensor& x) const;
  at::Tensor norm_and_activate(const Step& step, const std::string& name, const at::Tensor& image, GroupNorm norm,
                               Activation activation) const;

  void embed(const Inputs& inputs, State& state) const;
  at::Tensor two_linears(const Step& step, const std::string& name, const at::Tensor& input) const;
  at::Tensor class_embedding(const Step& step, const Inputs& inputs) const;
  at::Tensor resnet(const Step& step, const State& state) const;
  at::Tensor shortcut(const Step& step, const at::Tensor& image) const;
  void shell_in(const Step& step, State& state) const;
  void shell_out(const Step& step, State& state) const;
  at::Tensor token_attention(const Step& step, const State& state) const;
  at::Tensor feed_forward(const Step& step, const at::Tensor& tokens) const;
  at::Tensor plain_attention(const Step& step, const at::Tensor& image) const;
  at::Tensor attend(const Step& step, const std::string& name, const at::Tensor& queries, const at::Tensor& keys,
                    const at::Tensor& residual) const;
  std::array<at::Tensor, 3> queries_keys_values(const Step& step, const std::string& prefix, const at::Tensor& queries,
                                                const at::Tensor& keys) const;
  const Stage& stage(const Step& step) const { return program_.stages[static_cast<std::size_t>(step.stage)]; }

  Program program_;
  std::vector<Weights> bound_;  // by base position
  at::ScalarType dtype_ = at::kFloat;
  Layout layout_ = Layout::plain;
  std::shared_ptr<ForwardGraphs> graphs_;  // none where there is nothing to gain
};

}  // namespace laptopdiff::unet
