// Helpers that open models and specs for the verbs.
#include <torch/types.h>

#include "experiments/verbs.h"
#include "runtime/error.h"
#include "runtime/hash.h"
#include "runtime/progress.h"
#include "runtime/weight_files.h"
#include "unet/lora.h"

namespace laptopdiff::experiments {

namespace {

// Throws Error(bad_input) naming the first field in which the spec's base is not the model's.
void require_base(const unet::Spec& spec, const unet::Spec& base, const std::string& path) {
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
}

unet::SpecFile read_one_spec(const std::string& path) {
  unet::SpecFile file = unet::read_spec_file(path);
  if (!file.is_set) return file;
  throw runtime::usage_error(path, ": is a spec set; only `sample` runs one network an interval, here give one spec");
}

}  // namespace

unet::Spec load_spec_for(const std::string& path, const unet::Spec& base) {
  unet::Spec spec = read_one_spec(path).specs.front();
  require_base(spec, base, path);
  return spec;
}

std::string layout_sha256(const unet::Config& config) {
  runtime::Sha256 hash;
  const unet::Program base = unet::build_base(config);
  for (const unet::Step& step : base.steps) {
    for (const unet::Parameter& p : unet::step_parameters(config, base.stages, step))
      hash.add(runtime::cat(p.name, " ", runtime::shape_text(p.shape), "\n"));
  }
  return hash.hex();
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

// The modules of a U-Net by their names in the base and, of a student whose layers are numbered anew, by its own.
std::vector<unet::ModuleNames> unet_modules(const unet::Program& base,
                                            const std::map<std::string, std::string>& own_names) {
  unet::ModuleNames of_base, own;
  for (const unet::Step& step : base.steps) {
    for (const unet::Parameter& parameter : unet::step_parameters(base.config, base.stages, step)) {
      if (!parameter.name.ends_with(kWeight)) continue;
      const std::string module = without_weight(parameter.name);
      of_base[module] = module;
    }
  }
  for (const auto& [name, base_name] : own_names) {
    if (name.ends_with(kWeight)) own[without_weight(name)] = without_weight(base_name);
  }
  if (own.empty()) return {of_base};
  return {own, of_base};
}

// Of a model that has the modules of its weights, such as a text encoder.
std::vector<unet::ModuleNames> all_modules(const runtime::TensorMap& weights) {
  unet::ModuleNames names;
  for (const auto& [name, tensor] : weights) {
    if (name.ends_with(kWeight)) names[without_weight(name)] = without_weight(name);
  }
  return {names};
}

void merge_reported(const std::vector<unet::LoraSource>& sources, unet::LoraTarget target,
                    const std::vector<unet::ModuleNames>& numberings, runtime::TensorMap& weights,
                    at::ScalarType dtype) {
  const std::vector<unet::LoraUse> uses = unet::merge_lora(sources, target, numberings, weights, dtype);
  for (std::size_t i = 0; i < sources.size(); ++i) {
    unet::report_lora(sources[i], target, uses[i]);
    if (uses[i].numbering + 1 < numberings.size() && uses[i].merged > 0) {
      runtime::say(runtime::cat(sources[i].file.string(),
                                ": read in the student's own numbering of its layers, not in its base's"));
    }
  }
}

// The same, and every tensor keeps its type.
void merge_in_place(const std::vector<unet::LoraSource>& sources, unet::LoraTarget target,
                    const std::vector<unet::ModuleNames>& numberings, runtime::TensorMap& weights) {
  const runtime::TensorMap stored = weights;
  merge_reported(sources, target, numberings, weights, at::kFloat);
  for (auto& [name, tensor] : weights) tensor = tensor.to(stored.at(name).scalar_type());
}

constexpr unet::LoraTarget kTextTargets[] = {unet::LoraTarget::text_encoder, unet::LoraTarget::text_encoder_2};

// Of all files together.
std::size_t count_lora_tensors(const std::vector<unet::LoraSource>& sources, unet::LoraTarget target) {
  std::size_t count = 0;
  for (const unet::LoraSource& source : sources) count += unet::count_lora_tensors(source, target);
  return count;
}

void warn_of_absent(std::size_t count, unet::LoraTarget target) {
  if (count == 0) return;
  runtime::warn(runtime::cat("--lora: ", count, " tensors are for a ", unet::lora_target_name(target),
                             ", which this pipeline does not have"));
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
  return load_for_device(model, spec_path.empty() ? unet::SpecFile{} : read_one_spec(spec_path), common, hash, files);
}

LoadedModel load_for_device(const std::string& model, const unet::SpecFile& given, const CommonOptions& common,
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
  const auto check_weights_of = [&](const unet::Spec& spec) {
    if (spec.weights_sha256.empty()) return;
    if (stored.empty()) stored = runtime::tensors_sha256(raw.weights);
    check_made_for(spec.weights_sha256, stored, lora, given.path.string(), model);
  };
  if (!given.specs.empty() && !raw.spec.removed.empty())
    throw runtime::usage_error("--spec on a model that is pruned already: ", model);
  for (const unet::Spec& spec : given.specs) {
    require_base(spec, raw.spec, given.path.string());
    check_weights_of(spec);
  }
  if (given.is_set) loaded.students = given.specs;
  else if (!given.specs.empty()) loaded.spec = given.specs.front();
  loaded.base = unet::build_base(loaded.spec.base);
  loaded.program = unet::prune(loaded.base, loaded.spec);
  runtime::TensorMap selected = unet::select_weights(loaded.program, raw.weights, model);
  raw.weights.clear();
  merge_reported(lora, unet::LoraTarget::unet, unet_modules(loaded.base, raw.base_names), selected,
                 common.torch_dtype());
  loaded.weights = convert_finite(std::move(selected), common, model);
  return loaded;
}

runtime::TensorMap load_merged_weights(const std::string& model, const unet::Spec& spec, const std::string& spec_path,
                                       const WeightOptions& files) {
  const std::vector<unet::LoraSource> lora = lora_sources(files);
  unet::Model loaded = unet::load_model(model, files.variant);
  if (loaded.spec.removed.empty() && !spec.weights_sha256.empty())
    check_made_for(spec.weights_sha256, runtime::tensors_sha256(loaded.weights), lora, spec_path, model);
  merge_in_place(lora, unet::LoraTarget::unet, unet_modules(unet::build_base(loaded.spec.base), loaded.base_names),
                 loaded.weights);
  return std::move(loaded.weights);
}

std::map<std::string, runtime::TensorMap> load_merged_text(const std::filesystem::path& pipeline,
                                                           const WeightOptions& files) {
  const std::vector<unet::LoraSource> lora = lora_sources(files);
  std::map<std::string, runtime::TensorMap> changed;
  for (const unet::LoraTarget target : kTextTargets) {
    const std::size_t count = count_lora_tensors(lora, target);
    const std::string name = unet::lora_target_name(target);
    if (!std::filesystem::is_directory(pipeline / name)) {
      warn_of_absent(count, target);
    } else if (count > 0) {
      changed[name] = runtime::read_preferred_weight_files(pipeline / name, "model", files.variant);
      merge_in_place(lora, target, all_modules(changed[name]), changed[name]);
    }
  }
  return changed;
}

void refuse_text_lora(const WeightOptions& files) {
  for (const unet::LoraSource& source : lora_sources(files)) {
    for (const unet::LoraTarget target : kTextTargets) {
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
  const at::NoGradGuard no_grad;
  const std::vector<unet::LoraSource> sources = lora_sources(files);
  for (std::size_t i = 0; i < std::size(kTextTargets); ++i) {
    const unet::LoraTarget target = kTextTargets[i];
    if (i >= pipeline.text.size()) {
      warn_of_absent(count_lora_tensors(sources, target), target);
      continue;
    }
    runtime::TensorMap weights;
    for (const auto& item : pipeline.text[i].model->named_parameters()) weights[item.key()] = item.value();
    const runtime::TensorMap before = weights;
    merge_reported(sources, target, all_modules(weights), weights, at::kFloat);
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
