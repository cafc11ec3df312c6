// The verbs, a file each under verbs/, and the few helpers they share.
#pragma once

#include <filesystem>
#include <map>
#include <string>

#include "diffusion/pipeline.h"
#include "experiments/command.h"
#include "unet/executor.h"
#include "unet/weights.h"

namespace laptopdiff::experiments {

void run_inspect(const Invocation& invocation);
void run_forward(const Invocation& invocation);
void run_calibrate(const Invocation& invocation);
void run_score(const Invocation& invocation);
void run_solve(const Invocation& invocation);
void run_audit(const Invocation& invocation);
void run_export(const Invocation& invocation);
void run_distill(const Invocation& invocation);
void run_sample(const Invocation& invocation);
void run_evaluate(const Invocation& invocation);
void run_sweep(const Invocation& invocation);
void run_report(const Invocation& invocation);
void run_bench(const Invocation& invocation);
void run_doctor(const Invocation& invocation);
void run_completion(const Invocation& invocation);

// Reads a spec and checks that it was made for the architecture of `base` (config without bookkeeping keys).
// Throws Error(bad_input) naming the first field that differs.
unet::Spec load_spec_for(const std::string& path, const unet::Spec& base);

// Of the names and shapes of a U-Net's parameters: what calibration sets say they were made for. Weights may differ.
std::string layout_sha256(const unet::Config& config);

// Which of a model's files are read, and what is merged into them. Verbs that read weights list these among their own:
// `weights.fields(v)`.
struct WeightOptions {
  std::string variant;
  std::vector<std::string> lora;
  template <typename V>
  void fields(V& v) {
    v("variant", variant, "which variant of the weights to read (fp16, ...); default: full precision, or the only one");
    v("lora", lora, "LoRA files to merge, FILE or FILE:scale, comma separated");
  }
};

// A model with its weights on the device in the compute type, LoRA merged. `spec_path` replaces what the model says was
// removed; its weights_sha256, where present, must be the model's. Throws Error(bad_input), and Error(non_finite) where
// weights hold NaN or Inf. Memory: one copy of the weights, whatever the storage type.
struct LoadedModel {
  unet::Spec spec;
  unet::Program base, program;
  runtime::TensorMap weights;  // of `program`, converted
  // Of the base weights as stored, and of the LoRA files where there are some; empty unless asked for.
  std::string weights_sha256;
  // Of a spec set, in order of their timesteps; `program` is the base then. Empty without a set.
  std::vector<unet::Spec> students;
};
enum class WeightsHash { skip, compute };
// One network: a spec set is refused. An empty path: the model as it is.
LoadedModel load_for_device(const std::string& model, const std::string& spec_path, const CommonOptions& common,
                            WeightsHash hash, const WeightOptions& files = {});
// What a spec file holds, one spec or a set.
LoadedModel load_for_device(const std::string& model, const unet::SpecFile& spec, const CommonOptions& common,
                            WeightsHash hash, const WeightOptions& files = {});

// A model's weights as stored, LoRA merged in their own types: those of `spec`'s base, or of the pruned model itself.
// Throws as load_for_device.
runtime::TensorMap load_merged_weights(const std::string& model, const unet::Spec& spec, const std::string& spec_path,
                                       const WeightOptions& files);

// The text encoders of a pipeline folder into which the LoRA files merge something: their folder -> their weights as
// stored, merged in their own types. Warns of tensors for an encoder that the pipeline does not have.
std::map<std::string, runtime::TensorMap> load_merged_text(const std::filesystem::path& pipeline,
                                                           const WeightOptions& files);

// Where the U-Net alone is written. Throws Error(usage) where a LoRA file also holds tensors for text encoders.
void refuse_text_lora(const WeightOptions& files);

// The same for verbs that read a whole pipeline.
struct PipelineOptions {
  WeightOptions weights;
  std::string config_folder;
  template <typename V>
  void fields(V& v) {
    weights.fields(v);
    v("pipeline_config", config_folder,
      "for a single-file checkpoint: diffusers folder with its tokenizer and scheduler; default: the file's folder");
  }
};

// A pipeline on the device, with what the LoRA files hold for its text encoders merged into them. Throws as
// Pipeline::load and merge_lora.
diffusion::Pipeline load_pipeline(const std::string& path, const PipelineOptions& options, const CommonOptions& common);

}  // namespace laptopdiff::experiments
