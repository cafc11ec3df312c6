#include "unet/lora.h"

#include <torch/types.h>

#include <cmath>
#include <map>

#include "runtime/error.h"
#include "runtime/json.h"
#include "runtime/progress.h"

namespace laptopdiff::unet {
namespace {

using runtime::cat;
using runtime::input_error;
using runtime::Json;
using runtime::TensorMap;

constexpr const char* kMetadataKey = "lora_adapter_metadata";  // where diffusers keeps peft's settings
constexpr const char* kPeftPrefix = "base_model.model.";       // peft's own save
constexpr const char* kPeftSettings = "adapter_config.json";   // which then has them beside the weights

// The tensors of one module.
struct Adapter {
  at::Tensor down, up, alpha;
  std::vector<std::string> names;  // in the file
};

// What peft's settings say of the scale; a file without them has alpha = r.
class PeftSettings {
 public:
  PeftSettings(const runtime::SafetensorsFile& file, LoraTarget target) {
    const auto found = file.metadata().find(kMetadataKey);
    if (file.has_below(kPeftPrefix)) {
      const auto beside = file.path().parent_path() / kPeftSettings;
      where_ = beside.string();
      json_ = runtime::read_json(beside);  // without it alpha is unknown
    } else if (found != file.metadata().end()) {
      prefix_ = cat(lora_target_name(target), ".");
      where_ = cat(file.path().string(), ": ", kMetadataKey);
      json_ = runtime::parse_json(found->second, where_);
    }
    if (!json_.is_object()) throw input_error(where_, " is not an object");
    if (const Json* dora = find("use_dora"); dora && *dora == true)
      throw input_error(where_, ": DoRA is not supported");
  }

  // alpha / r, or alpha / sqrt(r) for rank-stabilised LoRA.
  double factor(const std::string& module, double rank) const {
    const double alpha = this->alpha(module).value_or(rank);
    const Json* stabilised = find("use_rslora");
    return alpha / (stabilised && *stabilised == true ? std::sqrt(rank) : rank);
  }

 private:
  const Json* find(const std::string& key) const {
    const auto found = json_.find(prefix_ + key);
    return found == json_.end() || found->is_null() ? nullptr : &*found;
  }
  double number(const Json& value) const { return runtime::ObjectReader::convert<double>(value, where_); }

  std::optional<double> alpha(const std::string& module) const {
    if (const Json* pattern = find("alpha_pattern"); pattern && pattern->is_object()) {
      for (const auto& [key, value] : pattern->items()) {
        if (module == key || module.ends_with("." + key)) return number(value);
      }
    }
    const Json* alpha = find("lora_alpha");
    return alpha ? std::optional(number(*alpha)) : std::nullopt;
  }

  std::string prefix_, where_;
  Json json_ = Json::object();
};

// The file's adapters by the model's module; whatever does not fit goes to `problems`.
class Adapters {
 public:
  Adapters(const TensorMap& tensors, LoraTarget target, const ModuleNames& numbering,
           std::vector<std::string>& problems) {
    std::vector<std::string> names;
    for (const auto& [name, module] : numbering) names.push_back(name);
    const LoraModules known(target, names);
    for (const auto& [name, tensor] : tensors) {
      const auto parsed = parse_lora_name(name);
      if (parsed && parsed->target != target) {
        ++elsewhere;
        continue;
      }
      const auto module = parsed ? known.find(*parsed) : std::nullopt;
      if (!module) {
        problems.push_back(cat(name, parsed ? ": the model has no such layer" : ": not a LoRA tensor this reads"));
        continue;
      }
      add(by_module[numbering.at(*module)], name, *parsed, tensor, problems);
    }
  }

  std::map<std::string, Adapter> by_module;
  std::size_t elsewhere = 0;

 private:
  static void add(Adapter& adapter, const std::string& name, const LoraName& parsed, const at::Tensor& tensor,
                  std::vector<std::string>& problems) {
    at::Tensor& slot = parsed.part == LoraPart::down ? adapter.down
                       : parsed.part == LoraPart::up ? adapter.up
                                                     : adapter.alpha;
    if (slot.defined()) problems.push_back(cat(name, ": a second tensor for ", parsed.module));
    else if (!tensor.is_floating_point()) problems.push_back(cat(name, ": does not hold floats"));
    slot = tensor;
    adapter.names.push_back(name);
  }
};

// Why an adapter cannot be merged into a weight; "" where it can.
std::string misfit(const Adapter& adapter, const at::Tensor& weight) {
  const at::Tensor &a = adapter.down, &b = adapter.up;
  if (!a.defined() || !b.defined()) return "one half of the pair is missing";
  if (adapter.alpha.defined() && adapter.alpha.numel() != 1) return "alpha is not one number";
  const bool fits = a.dim() >= 2 && b.dim() >= 2 && weight.dim() >= 2 && a.size(0) > 0 && b.size(0) == weight.size(0) &&
                    b.numel() == b.size(0) * a.size(0) && a.numel() * weight.size(0) == weight.numel() * a.size(0);
  if (fits) return "";
  return cat("A is ", runtime::sizes_text(a), " and B ", runtime::sizes_text(b), " for a weight of ",
             runtime::sizes_text(weight));
}

// An adapter with the factor that its file and the user give it.
struct Addition {
  Adapter adapter;
  double factor;
};

// In f32 to the end: a sum that is rounded between its terms depends on their order.
at::Tensor merged(const at::Tensor& weight, const std::vector<Addition>& additions, at::ScalarType dtype) {
  at::Tensor sum = weight.to(at::kFloat);
  for (const auto& [adapter, factor] : additions) {
    const at::Tensor a = adapter.down.to(at::kFloat).flatten(1), b = adapter.up.to(at::kFloat).flatten(1);
    sum = sum.add(at::mm(b, a).view(weight.sizes()), factor);  // [out, in] or [out, in, k, k]
  }
  return sum.to(dtype);
}

// One file, read in one numbering: what it adds to which weight, and what does not fit.
struct Reading {
  LoraUse use;
  std::map<std::string, Addition> additions;
  std::vector<std::string> problems;
};

Reading read_numbering(const TensorMap& tensors, const PeftSettings& settings, double scale, LoraTarget target,
                       const ModuleNames& numbering, const TensorMap& weights) {
  Reading reading;
  const Adapters adapters(tensors, target, numbering, reading.problems);
  reading.use.elsewhere = adapters.elsewhere;
  for (const auto& [module, adapter] : adapters.by_module) {
    const auto weight = weights.find(module + ".weight");
    if (weight == weights.end()) {
      reading.use.removed += adapter.names.size();
      continue;
    }
    if (const std::string why = misfit(adapter, weight->second); !why.empty()) {
      reading.problems.push_back(cat(adapter.names.front(), ": ", why));
      continue;
    }
    const auto rank = static_cast<double>(adapter.down.size(0));
    const double factor = adapter.alpha.defined() ? adapter.alpha.item<double>() / rank : settings.factor(module, rank);
    reading.additions[weight->first] = {adapter, scale * factor};
    reading.use.merged += adapter.names.size();
  }
  return reading;
}

// In the first numbering in which all of it fits.
Reading read_lora(const LoraSource& source, LoraTarget target, const std::vector<ModuleNames>& numberings,
                  const TensorMap& weights) {
  const TensorMap tensors = runtime::read_tensors(source.file);
  const PeftSettings settings(*runtime::SafetensorsFile::open(source.file), target);
  Reading reading;
  for (std::size_t i = 0; i < numberings.size(); ++i) {
    reading = read_numbering(tensors, settings, source.scale, target, numberings[i], weights);
    reading.use.numbering = i;
    if (reading.problems.empty()) return reading;
  }
  throw input_error(source.file.string(), ": ", reading.problems.size(), " LoRA tensors do not fit the model:\n  ",
                    runtime::listing(reading.problems, 12, "\n  "));
}

}  // namespace

LoraSource parse_lora_source(const std::string& text) {
  LoraSource source{text, 1.0};
  if (const std::size_t colon = text.rfind(':'); colon != std::string::npos) {
    const Json number = Json::parse(text.substr(colon + 1), nullptr, false);
    if (number.is_number()) source = {text.substr(0, colon), number.get<double>()};
  }
  if (source.file.empty()) throw runtime::usage_error("--lora ", text, ": expected FILE or FILE:scale");
  return source;
}

std::vector<LoraUse> merge_lora(const std::vector<LoraSource>& sources, LoraTarget target,
                                const std::vector<ModuleNames>& numberings, TensorMap& weights, at::ScalarType dtype) {
  std::map<std::string, std::vector<Addition>> additions;
  std::vector<LoraUse> uses;
  for (const LoraSource& source : sources) {
    Reading reading = read_lora(source, target, numberings, weights);
    for (auto& [name, addition] : reading.additions) additions[name].push_back(std::move(addition));
    uses.push_back(reading.use);
  }
  for (const auto& [name, of_weight] : additions) {
    at::Tensor& weight = weights.at(name);
    const at::Tensor before = weight;
    weight = merged(before, of_weight, dtype);
    runtime::release_pages(before);
  }
  return uses;
}

std::size_t count_lora_tensors(const LoraSource& source, LoraTarget target) {
  const auto file = runtime::SafetensorsFile::open(source.file);
  std::size_t count = 0;
  for (const auto& [name, view] : file->tensors()) {
    const auto parsed = parse_lora_name(name);
    if (parsed && parsed->target == target) ++count;
  }
  return count;
}

void report_lora(const LoraSource& source, LoraTarget target, const LoraUse& use) {
  const std::string file = source.file.string();
  if (target == LoraTarget::unet && use.merged + use.removed == 0)
    runtime::warn(cat(file, ": holds nothing for the ", lora_target_name(target)));
  if (use.merged > 0) runtime::say(cat(file, ": ", use.merged, " tensors merged into the ", lora_target_name(target)));
  if (target == LoraTarget::unet && use.merged > 0 && use.elsewhere > 0)
    runtime::say(cat(file, ": ", use.elsewhere, " tensors are not of the unet"));
  if (use.removed > 0) runtime::say(cat(file, ": ", use.removed, " tensors of removed layers are left out"));
}

}  // namespace laptopdiff::unet
