#include "unet/weights.h"

#include <torch/types.h>

#include <set>

#include "runtime/error.h"
#include "runtime/weight_files.h"
#include "runtime/weight_names.h"
#include "unet/exported_weights.h"
#include "unet/original_names.h"
#include "unet/recover_spec.h"
#include "unet/single_file.h"

namespace laptopdiff::unet {
namespace fs = std::filesystem;
namespace {

using runtime::cat;
using runtime::input_error;

constexpr const char* kStem = "diffusion_pytorch_model";

// The U-Net folder of a pipeline, or the folder itself.
fs::path unet_folder(const fs::path& path) {
  if (!fs::exists(path)) throw input_error(path.string(), ": no such file or folder");
  if (fs::is_directory(path) && !fs::exists(path / "config.json") && fs::exists(path / "unet" / "config.json"))
    return path / "unet";
  return single_file_of(path);
}

// Our own class for diffusers keeps the base's names; its config is not one that parse_config reads.
bool is_our_class(const fs::path& folder) {
  const runtime::Json config = runtime::read_json(folder / "config.json");
  return config.is_object() && config.contains("removed_layers");
}

void rename_old_attention(TensorMap& weights, const std::string& where) {
  TensorMap renamed;
  for (const auto& [name, tensor] : weights) {
    if (!renamed.emplace(current_attention_name(name), tensor).second)
      throw input_error(where, ": holds ", name, " and ", current_attention_name(name), ", which are one tensor");
  }
  weights = std::move(renamed);
}

// What is missing or misshapen; names the tensors that the program has in `used`.
runtime::Misfits misfits(const Program& program, const TensorMap& weights, std::set<std::string>& used) {
  runtime::Misfits found;
  for (const Step& step : program.steps) {
    for (const Parameter& parameter : step_parameters(program.config, program.stages, step)) {
      used.insert(parameter.name);
      const auto entry = weights.find(parameter.name);
      if (entry == weights.end()) {
        found.missing.push_back(cat(parameter.name, " ", runtime::shape_text(parameter.shape)));
      } else if (entry->second.sizes() != at::IntArrayRef(parameter.shape)) {
        found.misshapen.push_back(cat(parameter.name, " is ", runtime::sizes_text(entry->second), ", expected ",
                                      runtime::shape_text(parameter.shape)));
      } else if (!entry->second.is_floating_point()) {
        found.misshapen.push_back(
            cat(parameter.name, " holds ", runtime::dtype_name(runtime::dtype_of(entry->second)), ", expected floats"));
      }
    }
  }
  return found;
}

// Throws where the weights are not exactly the program's.
void check_weights(const Program& program, const TensorMap& weights, const std::string& where,
                   const std::string& source) {
  std::set<std::string> used;
  runtime::Misfits found = misfits(program, weights, used);
  for (const auto& [name, tensor] : weights) {
    if (!used.contains(name)) found.unexpected.push_back(cat(name, " ", runtime::sizes_text(tensor)));
  }
  if (found.count() > 0)
    throw input_error(where, ": ", found.count(), " tensors do not fit ", source, ":", found.text());
}

Model open_checkpoint(const fs::path& path) {
  const auto file = open_single_file(path);
  const TensorViews views = single_file_unet(*file);
  Model model;
  model.path = path;
  const Config config = parse_config(config_from_tensors(views, path.string()), path.string());
  model.spec.base = config;
  if (const fs::path spec = spec_beside(path); !spec.empty()) model.spec = read_spec(spec);
  for (const auto& [name, view] : views) model.weights[name] = runtime::view_tensor(file, view);
  model.base_names = restore_base_names(config, model.spec, model.weights, path.string());
  check_weights(build_program(model.spec), model.weights, path.string(),
                model.spec.removed.empty() ? "the architecture that the others have" : "spec.json");
  return model;
}

}  // namespace

TensorMap select_weights(const Program& program, const TensorMap& weights, const std::string& where) {
  std::set<std::string> used;
  const runtime::Misfits found = misfits(program, weights, used);
  if (found.count() > 0)
    throw input_error(where, ": ", found.count(), " tensors do not fit the architecture:", found.text());
  TensorMap selected;
  for (const std::string& name : used) selected[name] = weights.at(name);
  return selected;
}

Spec load_architecture(const fs::path& path) {
  const fs::path folder = unet_folder(path);
  if (is_single_file(folder)) return open_checkpoint(folder).spec;
  if (fs::is_directory(folder) && fs::exists(folder / "spec.json")) return read_spec(folder / "spec.json");
  if (fs::is_directory(folder) && is_our_class(folder))
    return spec_of_removed_layers(runtime::read_json(folder / "config.json"), (folder / "config.json").string());
  Spec spec;
  spec.base = read_config_file(folder);
  return spec;
}

std::string available_variant(const fs::path& path, const std::string& wanted) {
  return runtime::has_weight_files(unet_folder(path), kStem, wanted) ? wanted : "";
}

Model load_model(const fs::path& path, const std::string& variant) {
  Model model;
  model.path = unet_folder(path);
  if (is_single_file(model.path)) {
    if (!variant.empty()) throw runtime::usage_error("--variant ", variant, ": ", path.string(), " is a single file");
    return open_checkpoint(model.path);
  }
  model.spec = load_architecture(model.path);
  const Program program = build_program(model.spec);  // an unsupported config fails before any weight is read
  if (!fs::is_directory(model.path)) throw input_error(path.string(), ": weights are needed; give the model's folder");
  TensorMap weights = runtime::read_weight_files(model.path, kStem, variant);
  rename_old_attention(weights, model.path.string());
  if (!model.spec.removed.empty() && !is_our_class(model.path))
    model.base_names = restore_base_names(read_config_file(model.path), model.spec, weights, model.path.string());
  check_weights(program, weights, model.path.string(),
                model.spec.removed.empty() ? "config.json" : "config.json and spec.json");
  model.weights = std::move(weights);
  return model;
}

void save_model(const fs::path& folder, const Spec& spec, const TensorMap& weights) {
  runtime::write_json(folder / "config.json", spec.base.raw);
  if (!spec.removed.empty()) runtime::write_json(folder / "spec.json", spec_json(spec));
  runtime::write_tensors(folder / cat(kStem, ".safetensors"), weights, {{"format", "pt"}});
}

TensorMap convert(const TensorMap& weights, at::ScalarType dtype, at::Device device) {
  TensorMap converted;
  for (const auto& [name, tensor] : weights) {
    const at::Tensor& result = converted[name] =
        tensor.is_floating_point() ? tensor.to(device, dtype) : tensor.to(device);
    if (!result.is_alias_of(tensor)) runtime::release_pages(tensor);
  }
  return converted;
}

}  // namespace laptopdiff::unet
