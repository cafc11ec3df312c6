#include "unet/weights.h"

#include <torch/types.h>

#include <set>

#include "runtime/error.h"
#include "runtime/weight_files.h"

namespace laptopdiff::unet {
namespace fs = std::filesystem;
namespace {

using runtime::cat;
using runtime::input_error;

constexpr const char* kStem = "diffusion_pytorch_model";
constexpr std::size_t kMostListed = 12;

std::string shortened(const std::vector<std::string>& lines) {
  std::vector<std::string> shown(lines.begin(),
                                 lines.begin() + static_cast<std::ptrdiff_t>(std::min(lines.size(), kMostListed)));
  std::string text = runtime::join(shown, "\n  ");
  if (lines.size() > kMostListed) text += cat("\n  ... and ", lines.size() - kMostListed, " more");
  return text;
}

// The U-Net folder of a pipeline, or the folder itself.
fs::path unet_folder(const fs::path& path) {
  if (!fs::exists(path)) throw input_error(path.string(), ": no such file or folder");
  if (fs::is_directory(path) && !fs::exists(path / "config.json") && fs::exists(path / "unet" / "config.json"))
    return path / "unet";
  return path;
}

// Plain attention was once saved as query, key, value, proj_attn.
void rename_old_attention(TensorMap& weights) {
  static const std::pair<std::string, std::string> kRenamed[] = {
      {".query.", ".to_q."}, {".key.", ".to_k."}, {".value.", ".to_v."}, {".proj_attn.", ".to_out.0."}};
  TensorMap renamed;
  for (auto& [name, tensor] : weights) {
    std::string key = name;
    for (const auto& [old, now] : kRenamed) {
      if (const std::size_t at = key.find(old); at != std::string::npos) key.replace(at, old.size(), now);
    }
    renamed[key] = tensor;
  }
  weights = std::move(renamed);
}

// Missing and misshapen tensors, a line each; names the ones it used in `used`.
std::vector<std::string> complaints(const Program& program, const TensorMap& weights, std::set<std::string>& used) {
  std::vector<std::string> lines;
  for (const Step& step : program.steps) {
    for (const Parameter& parameter : step_parameters(program.config, program.stages, step)) {
      used.insert(parameter.name);
      const auto found = weights.find(parameter.name);
      if (found == weights.end()) {
        lines.push_back(cat("missing: ", parameter.name, " ", runtime::shape_text(parameter.shape)));
      } else if (found->second.sizes() != at::IntArrayRef(parameter.shape)) {
        lines.push_back(cat(parameter.name, ": is ", runtime::sizes_text(found->second), ", expected ",
                            runtime::shape_text(parameter.shape)));
      } else if (!found->second.is_floating_point()) {
        lines.push_back(cat(parameter.name, ": holds ", runtime::dtype_name(runtime::dtype_of(found->second)),
                            ", expected floats"));
      }
    }
  }
  return lines;
}

}  // namespace

TensorMap select_weights(const Program& program, const TensorMap& weights, const std::string& where) {
  std::set<std::string> used;
  const std::vector<std::string> lines = complaints(program, weights, used);
  if (!lines.empty())
    throw input_error(where, ": ", lines.size(), " tensors do not fit the architecture:\n  ", shortened(lines));
  TensorMap selected;
  for (const std::string& name : used) selected[name] = weights.at(name);
  return selected;
}

Spec load_architecture(const fs::path& path) {
  const fs::path folder = unet_folder(path);
  if (fs::is_directory(folder) && fs::exists(folder / "spec.json")) return read_spec(folder / "spec.json");
  Spec spec;
  spec.base = read_config_file(folder);
  return spec;
}

Model load_model(const fs::path& path) {
  Model model;
  model.path = unet_folder(path);
  model.spec = load_architecture(model.path);
  const Program program = build_program(model.spec);  // an unsupported config fails before any weight is read
  if (!fs::is_directory(model.path)) throw input_error(path.string(), ": weights are needed; give the model's folder");
  TensorMap weights = runtime::read_weight_files(model.path, kStem);
  if (program.config.model_class == ModelClass::unconditional) rename_old_attention(weights);
  std::set<std::string> used;
  std::vector<std::string> lines = complaints(program, weights, used);
  for (const auto& [name, tensor] : weights) {
    if (!used.contains(name)) lines.push_back(cat("unexpected: ", name, " ", runtime::sizes_text(tensor)));
  }
  if (!lines.empty()) {
    throw input_error(model.path.string(), ": ", lines.size(), " tensors do not fit config.json",
                      model.spec.removed.empty() ? "" : " and spec.json", ":\n  ", shortened(lines));
  }
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
    converted[name] = tensor.is_floating_point() ? tensor.to(device, dtype) : tensor.to(device);
  }
  return converted;
}

}  // namespace laptopdiff::unet
