#include "unet/original_stream.h"

#include <torch/types.h>

#include <algorithm>
#include <array>

#include "runtime/error.h"
#include "runtime/json.h"
#include "runtime/tensors.h"
#include "runtime/weight_files.h"
#include "unet/pipeline_copy.h"

namespace laptopdiff::unet {
namespace fs = std::filesystem;
namespace {

using runtime::cat;
using runtime::input_error;
using runtime::Json;
using runtime::TensorMap;

[[noreturn]] void no_name(const std::string& tensor) {
  throw runtime::usage_error("no such form: original checkpoints have no name for ", tensor);
}

std::string prefixed(std::string_view prefix, const std::string& name) { return std::string(prefix) + name; }

// What is read of a component, and how it is stored.
struct Part {
  fs::path folder;
  std::string variant;
  std::optional<at::ScalarType> storage;
  const TensorMap* changed = nullptr;  // read instead of the folder's weights

  TensorMap weights(const char* stem) const {
    return changed ? *changed : runtime::read_preferred_weight_files(folder, stem, variant);
  }
};

void add_vae(TensorStream& stream, const Part& part) {
  const fs::path& folder = part.folder;
  const Json config = runtime::read_json(folder / "config.json");
  runtime::ObjectReader in(config, (folder / "config.json").string());
  const int levels = static_cast<int>(in.required<std::vector<int>>("block_out_channels").size());
  const TensorMap weights = part.weights("diffusion_pytorch_model");
  for (const auto& [name, stored] : weights) {
    const std::string current = current_attention_name(name);
    const auto original = original_vae_name(current, levels);
    if (!original) no_name("vae: " + name);
    const bool projection = current.find(".to_") != std::string::npos && stored.dim() == 2;
    stream[prefixed(kVaePrefix, *original)] =
        streamed(projection ? stored.view({stored.size(0), stored.size(1), 1, 1}) : stored, part.storage);
  }
}

// Text encoders under the names that transformers always had: newer versions leave `text_model.` out.
TensorMap read_text_encoder(const Part& part) {
  TensorMap tensors;
  const TensorMap weights = part.weights("model");
  for (const auto& [name, tensor] : weights) {
    if (name.ends_with("position_ids")) continue;
    const bool complete = name.starts_with("text_model.") || name.starts_with("text_projection.");
    tensors[complete ? name : "text_model." + name] = tensor;
  }
  return tensors;
}

void add_transformers_text(TensorStream& stream, const Part& part, std::string_view prefix) {
  for (const auto& [name, tensor] : read_text_encoder(part)) {
    if (name.starts_with("text_model.")) stream[prefixed(prefix, name)] = streamed(tensor, part.storage);
  }
}

using Thirds = std::array<at::Tensor, 3>;

// OpenCLIP keeps q, k and v in one tensor.
StreamedTensor fused(const Thirds& parts, const std::string& name, const Part& part) {
  for (const at::Tensor& third : parts) {
    if (!third.defined()) throw input_error(part.folder.string(), ": ", name, " needs q, k and v; one is missing");
    if (third.dim() < 1 || third.sizes() != parts[0].sizes()) {
      throw input_error(part.folder.string(), ": q, k and v of ", name, " are ", runtime::sizes_text(parts[0]), ", ",
                        runtime::sizes_text(parts[1]), " and ", runtime::sizes_text(parts[2]));
    }
  }
  StreamedTensor whole = streamed(parts[0], part.storage);
  whole.shape[0] *= 3;
  whole.make = [parts] { return at::cat({parts[0], parts[1], parts[2]}); };
  return whole;
}

TensorStream open_clip_text(const Part& part) {
  TensorStream stream;
  std::map<std::string, Thirds> thirds;
  for (const auto& [name, tensor] : read_text_encoder(part)) {
    const auto place = open_clip_place(name);
    if (!place) no_name(part.folder.filename().string() + ": " + name);
    if (place->transposed && tensor.dim() != 2)
      throw input_error(part.folder.string(), ": ", name, " is ", runtime::sizes_text(tensor), ", expected a matrix");
    if (place->third) thirds[place->name][static_cast<std::size_t>(*place->third)] = tensor;
    else stream[place->name] = streamed(place->transposed ? tensor.t() : tensor, part.storage);
  }
  for (const auto& [name, parts] : thirds) stream[name] = fused(parts, name, part);
  return stream;
}

// SD 2 is conditioned on the last state but one. diffusers' encoder ends there; the original has one more layer, whose
// result is not used and which readers count on. Zeros make it the identity.
void add_unused_layer(TensorStream& stream) {
  const std::string layers = "transformer.resblocks.";
  int count = 0;
  while (stream.contains(cat(layers, count, ".ln_1.weight"))) ++count;
  const std::string last = cat(layers, count - 1, ".");
  TensorStream unused;
  for (auto entry = stream.lower_bound(last); entry != stream.end() && entry->first.starts_with(last); ++entry) {
    StreamedTensor zeros = entry->second;
    zeros.make = [shape = zeros.shape] { return at::zeros(shape, at::kFloat); };
    unused[cat(layers, count, ".", entry->first.substr(last.size()))] = zeros;
  }
  stream.merge(unused);
}

void add_prefixed(TensorStream& stream, const TensorStream& part, std::string_view prefix) {
  for (const auto& [name, tensor] : part) stream[prefixed(prefix, name)] = tensor;
}

// SD 1's text encoder is OpenAI's CLIP, which has quick_gelu; SD 2's is OpenCLIP's.
bool is_open_clip(const fs::path& folder) {
  const Json config = runtime::read_json(folder / "config.json");
  runtime::ObjectReader in(config, (folder / "config.json").string());
  return in.get<std::string>("hidden_act", "quick_gelu") != "quick_gelu";
}

}  // namespace

Family original_family(const Config& config) { return config.text_time ? Family::sd_xl : Family::sd; }

TensorStream original_unet(const TensorStream& tensors, Family family) {
  TensorStream renamed;
  for (const auto& [name, tensor] : tensors) {
    const auto original = original_unet_name(name, family);
    if (!original || diffusers_unet_name(*original) != name) no_name(name);
    renamed[prefixed(kUNetPrefix, *original)] = tensor;
  }
  return renamed;
}

void add_pipeline_parts(TensorStream& stream, const PipelineParts& parts, std::optional<at::ScalarType> storage) {
  const fs::path& pipeline = parts.folder;
  const auto part = [&](const char* name) {
    const auto changed = parts.changed.find(name);
    return Part{pipeline / name, parts.variant, storage, changed == parts.changed.end() ? nullptr : &changed->second};
  };
  const std::vector<std::string> names = pipeline_components(pipeline);
  const auto has = [&](const char* name) {
    const bool named = std::find(names.begin(), names.end(), name) != names.end();
    if (named && !fs::is_directory(pipeline / name))
      throw input_error(pipeline.string(), ": model_index.json names `", name, "`, but there is no such folder");
    return named;
  };
  if (has("vae")) add_vae(stream, part("vae"));
  if (has("text_encoder_2")) {
    if (!has("text_encoder")) throw runtime::usage_error("no such form: original SD XL files hold two text encoders");
    add_transformers_text(stream, part("text_encoder"), kXlText1Prefix);
    add_prefixed(stream, open_clip_text(part("text_encoder_2")), kXlText2Prefix);
  } else if (has("text_encoder")) {
    if (is_open_clip(pipeline / "text_encoder")) {
      TensorStream text = open_clip_text(part("text_encoder"));
      add_unused_layer(text);
      add_prefixed(stream, text, kSd2TextPrefix);
    } else {
      add_transformers_text(stream, part("text_encoder"), kSd1TextPrefix);
    }
  }
}

void add_other_parts(TensorStream& stream, const fs::path& checkpoint, std::optional<at::ScalarType> storage) {
  const auto file = runtime::SafetensorsFile::open(checkpoint);
  for (const auto& [name, view] : file->tensors()) {
    if (!name.starts_with(kUNetPrefix)) stream.emplace(name, streamed(runtime::view_tensor(file, view), storage));
  }
}

}  // namespace laptopdiff::unet
