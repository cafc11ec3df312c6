// How an executor for inference gets its weights; what it does with them is in executor.cpp.
#include <torch/types.h>

#ifdef __GLIBC__
#include <malloc.h>
#endif

#include "unet/executor.h"
#include "unet/forward_graphs.h"
#include "unet/gpu_ops.h"

namespace laptopdiff::unet {
namespace {

// Plain and packed weights come and go in turn; what is freed between those that stay would count as ours until the end
// (a third of the peak of SD 1.5), as glibc gives back only the top of its heap by itself.
constexpr std::int64_t kParamsBetweenTrims = 1 << 25;
void return_freed_memory() {
#ifdef __GLIBC__
  malloc_trim(0);
#endif
}

// Activations from this size on get pages of their own, which go back when they are freed. glibc would raise the size
// to 32 MiB by itself, and batches of changing sizes then leave a heap full of holes: half of what variants took.
constexpr int kOwnPagesBytes = 4 << 20;
void keep_heap_whole() {
#ifdef __GLIBC__
  mallopt(M_MMAP_THRESHOLD, kOwnPagesBytes);
#endif
}

}  // namespace

Executor::Layout Executor::best_layout() const {
  bool cpu = can_pack(dtype_), gpu = has_gpu_ops(dtype_);
  for (const Weights& own : bound_) {
    for (const auto& [name, tensor] : own) {
      cpu = cpu && tensor.device().is_cpu();
      gpu = gpu && tensor.device().is_cuda();
    }
  }
  return cpu ? Layout::cpu : gpu ? Layout::gpu : Layout::plain;
}

Executor Executor::for_inference(const Program& program, TensorMap weights) {
  Executor executor(program, weights);
  weights.clear();  // from here on the executor holds the only reference, and drops each tensor as it is laid out
  executor.layout_ = executor.best_layout();
  const c10::InferenceMode inference;
  const auto own = [&](const Step& step) -> Weights& {
    return executor.bound_[static_cast<std::size_t>(step.position)];
  };
  if (executor.layout_ == Layout::gpu) {
    for (const Step& step : program.steps) executor.lay_out_for_gpu(step, own(step));
    if (runtime::has_gpu_graphs()) executor.graphs_ = std::make_shared<ForwardGraphs>();
  }
  if (executor.layout_ != Layout::cpu) return executor;
  keep_heap_whole();
  std::int64_t packed = 0;
  for (const Step& step : program.steps) {
    executor.lay_out_for_cpu(step, own(step));
    packed += step.params;
    if (packed < kParamsBetweenTrims) continue;
    return_freed_memory();
    packed = 0;
  }
  return_freed_memory();
  return executor;
}

void Executor::lay_out_for_gpu(const Step& step, Weights& own) const {
  for (auto& [name, tensor] : own) {
    if (tensor.dim() == 4) tensor = tensor.contiguous(at::MemoryFormat::ChannelsLast);
  }
  // What is added to conv1's output anyway takes its bias along.
  if (step.kind == StepKind::resnet && program_.config.time_scale_shift == TimeScaleShift::shift) {
    own["time_emb_proj.bias"] = own.at("time_emb_proj.bias") + own.at("conv1.bias");
    own.erase("conv1.bias");
  }
  // Projections of one input are one product.
  const auto merge = [&](const std::string& prefix, const std::vector<std::string>& names, const std::string& merged) {
    for (const char* part : {".weight", ".bias"}) {
      std::vector<at::Tensor> rows;
      for (const std::string& name : names) {
        const auto found = own.find(prefix + name + part);
        if (found == own.end()) continue;
        rows.push_back(found->second);
        own.erase(found);
      }
      if (!rows.empty()) own[prefix + merged + part] = at::cat(rows);
    }
  };
  const bool of_text =
      step.kind == StepKind::attn2 || (step.kind == StepKind::attn1 && stage(step).only_cross_attention);
  const std::string prefix = step.kind == StepKind::attn1 ? "attn1." : step.kind == StepKind::attn2 ? "attn2." : "";
  if (of_text) merge(prefix, {"to_k", "to_v"}, "to_kv");
  else if (step.kind == StepKind::attn1 || step.kind == StepKind::attention)
    merge(prefix, {"to_q", "to_k", "to_v"}, "to_qkv");
}

void Executor::lay_out_for_cpu(const Step& step, Weights& own) const {
  const Config& c = program_.config;
  const std::int64_t tokens = std::int64_t{step.height} * step.width;
  if (step.kind == StepKind::ff) {  // GEGLU as two products, the second of which takes in the first
    const at::Tensor matrix = own.at("ff.net.0.proj.weight"), bias = own.at("ff.net.0.proj.bias");
    for (const char* key : {"ff.net.0.proj.weight", "ff.net.0.proj.bias"}) own.erase(key);
    const auto matrices = matrix.chunk(2), biases = bias.chunk(2);
    own["ff.value.weight"] = matrices[0];
    own["ff.gate.weight"] = matrices[1];
    own["ff.value.bias"] = biases[0].clone();
    own["ff.gate.bias"] = biases[1].clone();
  }
  if (step.kind == StepKind::upsample && step.height % 2 == 0 && step.width % 2 == 0) {
    const UpsampleKernels folded = pack_upsample(own.at("conv.weight"), step.height / 2, step.width / 2);
    for (std::size_t i = 0; i < folded.size(); ++i) own[folded_name(i)] = folded[i];
  }
  for (auto& [name, tensor] : own) {
    if (tensor.is_mkldnn()) continue;
    const at::Tensor plain = tensor;
    if (plain.dim() == 4) {
      ConvShape shape = conv_shape(step, plain);
      shape.height = shape.stride * step.height;
      shape.width = shape.stride * step.width;
      tensor = pack_conv(plain, shape);
    } else if (plain.dim() == 2 && !(step.kind == StepKind::embed && name == "class_embedding.weight" &&
                                     c.class_embedding == ClassEmbedding::table)) {
      const bool of_text = name.starts_with("attn2.to_k") || name.starts_with("attn2.to_v");
      const bool of_image = !of_text && step.kind != StepKind::embed && !name.starts_with("time_emb_proj");
      tensor = pack_linear(plain, of_image ? tokens : of_text ? program_.geometry.tokens : 1);
    }
    if (!tensor.is_same(plain)) runtime::release_pages(plain);
  }
}

}  // namespace laptopdiff::unet
