#include "pruning/criteria/variant_outputs.h"

#include <torch/types.h>

#include "runtime/error.h"

namespace laptopdiff::pruning {
namespace {

constexpr std::int64_t kMostSamplesAtOnce = 32;

std::vector<unet::Program> base_and_rows(const Subject& subject) {
  std::vector<unet::Program> programs{subject.base};
  programs.insert(programs.end(), subject.removables.without.begin(), subject.removables.without.end());
  return programs;
}

// From memory alone, whatever the number of samples: a longer run has the same blocks.
std::int64_t block_size(const Subject& subject, std::size_t variants) {
  if (subject.batch > 0) return subject.batch;
  return samples_at_once(subject.base, variants, subject.engine.memory_bytes, subject.inputs.sample.element_size(),
                         kMostSamplesAtOnce);
}

}  // namespace

VariantOutputs::VariantOutputs(const Subject& subject)
    : base_(subject.base),
      inputs_(subject.inputs),
      programs_(base_and_rows(subject)),
      engine_(subject.base, subject.executor, subject.engine),
      batch_(block_size(subject, programs_.size())),
      plan_(engine_.plan(programs_, batch_, subject.inputs.sample.element_size())) {}

runtime::TensorMap VariantOutputs::measure(const Block& block, std::int64_t part) {
  const c10::InferenceMode inference;
  const Chunk& chunk = plan_.chunks[static_cast<std::size_t>(part)];
  if (running_block_ != block.index || run_.position > chunk.first_position) {
    run_ = engine_.start(unet::slice(inputs_, block.first, block.last));
    running_block_ = block.index;
  }
  const std::vector<at::Tensor> outputs = engine_.run_chunk(chunk, run_);
  if (part + 1 == parts()) run_ = {}, running_block_ = -1;  // its states are large
  return {{"outputs", at::stack(outputs).to(at::kFloat)}};  // [variants of the chunk, b, C, H, W]
}

Measured VariantOutputs::fold(const Block& block, const std::vector<runtime::TensorMap>& parts) const {
  const c10::InferenceMode inference;
  std::vector<at::Tensor> outputs(programs_.size());
  for (std::size_t part = 0; part < parts.size(); ++part) {
    const std::vector<int>& variants = plan_.chunks[part].variants;
    const at::Tensor& own = parts[part].at("outputs");
    for (std::size_t i = 0; i < variants.size(); ++i)
      outputs[static_cast<std::size_t>(variants[i])] = own[static_cast<std::int64_t>(i)];
  }
  const at::Tensor all = outputs.front();
  if (!at::isfinite(all).all().item<bool>()) {
    throw runtime::non_finite_error("the model's own output is not finite on samples ", block.first, " to ",
                                    block.last - 1, "; try --dtype f32");
  }
  outputs.erase(outputs.begin());
  return compare(block, all, outputs);
}

runtime::Json VariantOutputs::plan() const {
  runtime::Json plan = Measurement::plan();
  for (const Chunk& chunk : plan_.chunks) plan["variants"].push_back(chunk.variants);
  return plan;
}

double VariantOutputs::forwards_per_sample() const {
  return static_cast<double>(plan_.macs) / static_cast<double>(base_.macs());
}

}  // namespace laptopdiff::pruning
