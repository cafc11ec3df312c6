// Helpers that open models and specs for the verbs.
#include <torch/types.h>

#include "experiments/verbs.h"
#include "runtime/error.h"
#include "runtime/hash.h"
#include "unet/lora.h"

namespace laptopdiff::experiments {

unet::Spec load_spec_for(const std::string& path, const unet::Spec& base) {
  unet::Spec spec = unet::read_spec(path);
  const Json ours = unet::comparable_config(base.base), theirs = unet::comparable_config(spec.base);
  if (base.base.class_name() != std::string(spec.base.class_name())) {
    throw runtime::input_error(path, ": made for a ", spec.base.class_name(), ", the model is a ",
                               base.base.class_name());
  }
  for (const auto& [key, value] : theirs.items()) {
    if (!ours.contains(key) || ours[key] != value) {
      throw runtime::input_error(path, ": made for another base: its `", key, "` is ", value.dump().substr(0, 80),
                                 ", the model's is ", ours.contains(key) ? ours[key].dump().substr(0, 80) : "absent");
    }
  }
  for (const auto& [key, value] : ours.items()) {
    if (!theirs.contains(key))
      throw runtime::input_error(path, ": made for another base: the model sets `", key, "`, the spec's base does not");
  }
  return spec;
}

namespace {

constexpr std::string_view kWeight = ".weight";

std::string without_weight(const std::string& name) { return name.substr(0, name.size() - kWeight.size()); }

std::vector<unet::LoraSource> lora_sources(const WeightOptions& files) {
  std::vector<unet::LoraSource> sources;
  for (const std::string& text : files.lora) sources.push_back(unet::parse_lora_source(text));
  return sources;
}

// Other weights must have another hash: scores of a model with LoRA are not those of the model.
std::string with_lora(const std::string& stored, const std::vector<unet::LoraSource>& lora) {
  if (lora.empty()) return stored;
  runtime::Sha256 hash;
  hash.add(stored);
  for (const unet::LoraSource& source : lora) {
    hash.add(runtime::cat('\n', runtime::tensors_sha256(runtime::read_tensors(source.file)), " ", source.scale));
  }
  return hash.hex();
}

// A spec names the weights it was made for: those that are stored, or those with LoRA that were scored.
// `stored` is the hash of the model's weights.
void check_made_for(const std::string& wanted, const std::string& stored, const std::vector<unet::LoraSource>& lora,
                    const std::string& spec, const std::string& model) {
  if (wanted == stored || wanted == with_lora(stored, lora)) return;
  throw runtime::input_error(spec, ": was made for other weights (weights_sha256 ", wanted.substr(0, 12), "...) than ",
                             model, lora.empty() ? "" : ", with this LoRA or without");
}

std::vector<std::string> module_names(const unet::Program& program) {
  std::vector<std::string> modules;
  for (const unet::Step& step : program.steps) {
    for (const unet::Parameter& parameter : unet::step_parameters(program.config, program.stages, step)) {
      if (parameter.name.ends_with(kWeight)) modules.push_back(without_weight(parameter.name));
    }
  }
  return modules;
}

void merge_reported(const std::vector<unet::LoraSource>& sources, unet::LoraTarget target,
                    const std::vector<std::string>& modules, runtime::TensorMap& weights, at::ScalarType dtype) {
  const std::vector<unet::LoraUse> uses = unet::merge_lora(sources, target, modules, weights, dtype);
  for (std::size_t i = 0; i < sources.size(); ++i) unet::report_lora(sources[i], target, uses[i]);
}

// Checked and converted tensor by tensor, so that each is read from the disk once and never held twice.
runtime::TensorMap convert_finite(runtime::TensorMap weights, const CommonOptions& common, const std::string& where) {
  const at::ScalarType dtype = common.torch_dtype();
  const at::Device device = common.torch_device();
  std::vector<std::string> bad;
  for (auto& [name, tensor] : weights) {
    const runtime::TensorMap one{{name, tensor}};
    for (const std::string& problem : runtime::non_finite_tensors(one)) bad.push_back(problem);
    tensor = unet::convert(one, dtype, device).at(name);
  }
  if (bad.empty()) return weights;
  throw runtime::non_finite_error(where, ": ", bad.size(), " tensors hold NaN or Inf: ", runtime::listing(bad));
}

}  // namespace

LoadedModel load_for_device(const std::string& model, const std::string& spec_path, const CommonOptions& common,
                            WeightsHash hash, const WeightOptions& files) {
  const std::vector<unet::LoraSource> lora = lora_sources(files);
  unet::Model raw = unet::load_model(model, files.variant);
  LoadedModel loaded;
  loaded.spec = raw.spec;
  std::string stored;  // hashing reads every byte of the weights: once, and only where it is needed
  if (hash == WeightsHash::compute) {
    stored = runtime::tensors_sha256(raw.weights);
    loaded.weights_sha256 = with_lora(stored, lora);
  }
  if (!spec_path.empty()) {
    if (!raw.spec.removed.empty()) throw runtime::usage_error("--spec on a model that is pruned already: ", model);
    loaded.spec = load_spec_for(spec_path, raw.spec);
    if (const std::string& wanted = loaded.spec.weights_sha256; !wanted.empty())
      check_made_for(wanted, stored.empty() ? runtime::tensors_sha256(raw.weights) : stored, lora, spec_path, model);
  }
  loaded.base = unet::build_base(loaded.spec.base);
  loaded.program = unet::prune(loaded.base, loaded.spec);
  runtime::TensorMap selected = unet::select_weights(loaded.program, raw.weights, model);
  raw.weights.clear();
  merge_reported(lora, unet::LoraTarget::unet, module_names(loaded.base), selected, common.torch_dtype());
  loaded.weights = convert_finite(std::move(selected), common, model);
  return loaded;
}

runtime::TensorMap load_merged_weights(const std::string& model, const unet::Spec& spec, const std::string& spec_path,
                                       const WeightOptions& files) {
  const std::vector<unet::LoraSource> lora = lora_sources(files);
  unet::Model loaded = unet::load_model(model, files.variant);
  if (loaded.spec.removed.empty() && !spec.weights_sha256.empty())
    check_made_for(spec.weights_sha256, runtime::tensors_sha256(loaded.weights), lora, spec_path, model);
  const runtime::TensorMap stored = loaded.weights;
  merge_reported(lora, unet::LoraTarget::unet, module_names(unet::build_base(loaded.spec.base)), loaded.weights,
                 at::kFloat);
  for (auto& [name, tensor] : loaded.weights) tensor = tensor.to(stored.at(name).scalar_type());
  return std::move(loaded.weights);
}

void refuse_text_lora(const WeightOptions& files) {
  for (const unet::LoraSource& source : lora_sources(files)) {
    for (const auto target : {unet::LoraTarget::text_encoder, unet::LoraTarget::text_encoder_2}) {
      if (const std::size_t count = unet::count_lora_tensors(source, target); count > 0) {
        throw runtime::usage_error("--lora ", source.file.string(), ": ", count, " of its tensors are for the ",
                                   unet::lora_target_name(target), ", which is not written here; take them out of ",
                                   "the file, or load it where the text encoders are");
      }
    }
  }
}

namespace {

void merge_text_lora(const WeightOptions& files, diffusion::Pipeline& pipeline) {
  constexpr unet::LoraTarget kTargets[] = {unet::LoraTarget::text_encoder, unet::LoraTarget::text_encoder_2};
  const at::NoGradGuard no_grad;
  const std::vector<unet::LoraSource> sources = lora_sources(files);
  for (std::size_t i = 0; i < std::size(kTargets); ++i) {
    if (i >= pipeline.text.size()) {
      for (const unet::LoraSource& source : sources) {
        if (const std::size_t count = unet::count_lora_tensors(source, kTargets[i]); count > 0) {
          runtime::warn(runtime::cat(source.file.string(), ": ", count, " tensors are for a ",
                                     unet::lora_target_name(kTargets[i]), ", which this pipeline does not have"));
        }
      }
      continue;
    }
    runtime::TensorMap weights;
    std::vector<std::string> modules;
    for (const auto& item : pipeline.text[i].model->named_parameters()) {
      weights[item.key()] = item.value();
      if (item.key().ends_with(kWeight)) modules.push_back(without_weight(item.key()));
    }
    const runtime::TensorMap before = weights;
    merge_reported(sources, kTargets[i], modules, weights, at::kFloat);
    for (auto& [name, tensor] : before) {
      if (!weights.at(name).is_same(tensor)) at::Tensor(tensor).copy_(weights.at(name));
    }
  }
}

}  // namespace

diffusion::Pipeline load_pipeline(const std::string& path, const PipelineOptions& options,
                                  const CommonOptions& common) {
  diffusion::Pipeline pipeline =
      diffusion::Pipeline::load(path, diffusion::Parts::all, {options.config_folder, options.weights.variant});
  merge_text_lora(options.weights, pipeline);
  pipeline.to(common.torch_device());
  return pipeline;
}

}  // namespace laptopdiff::experiments
