#include "unet/export.h"

#include <torch/types.h>

#include <algorithm>

#include "runtime/error.h"
#include "runtime/hash.h"
#include "unet/exported_weights.h"
#include "unet/model_card.h"
#include "unet/native_config.h"
#include "unet/original_stream.h"
#include "unet/pipeline_copy.h"
#include "unet/single_file.h"
#include "unet/tensor_stream.h"

namespace laptopdiff::unet {
namespace fs = std::filesystem;
namespace {

using runtime::cat;
using runtime::input_error;

constexpr const char* kWeightsFile = "diffusion_pytorch_model.safetensors";

TensorStream unet_stream(const ExportPlan& plan, const TensorMap& weights, std::optional<at::ScalarType> storage) {
  TensorStream stream;
  for (const ExportTensor& tensor : plan.tensors) {
    const bool copy = tensor.fill == Fill::copy;
    // A filled tensor is stored as the others are.
    StreamedTensor& written = stream[tensor.name] =
        streamed(weights.at(copy ? tensor.source : "conv_in.weight"), storage);
    if (copy) continue;
    written.shape = tensor.shape;
    written.make = [tensor] { return filled_tensor(tensor); };
  }
  return stream;
}

std::uint64_t stream_bytes(const TensorStream& stream) {
  std::uint64_t total = 0;
  for (const auto& [name, tensor] : stream) {
    std::uint64_t bytes = runtime::dtype_size(tensor.dtype);
    for (const std::int64_t size : tensor.shape) bytes *= static_cast<std::uint64_t>(size);
    total += bytes;
  }
  return total;
}

// A stock loader leaves random weights where a tensor is missing, so what was written is compared with what the class
// expects: same names, same shapes, nothing else.
void check_written(const fs::path& file, const TensorStream& expected) {
  const auto written = runtime::SafetensorsFile::open(file);
  TORCH_CHECK(written->tensors().size() == expected.size(), file.string(), ": ", written->tensors().size(),
              " tensors were written, ", expected.size(), " expected");
  for (const auto& [name, tensor] : expected) {
    const runtime::TensorView& view = written->at(name);
    TORCH_CHECK(view.shape == tensor.shape && view.dtype == tensor.dtype, file.string(), ": ", name,
                " was written wrongly");
  }
}

void write_unet_folder(const fs::path& folder, const ExportRequest& request, const ExportPlan& plan,
                       const TensorStream& stream) {
  fs::create_directories(folder);
  runtime::write_json(folder / "config.json", plan.config);
  if (plan.form == Form::custom) runtime::write_file(folder / cat(kPrunedModule, ".py"), pruned_class_source());
  write_stream(folder / kWeightsFile, stream);
  check_written(folder / kWeightsFile, stream);
}

// One file with these weights in place of those that a component has.
void replace_weights(const fs::path& component, const TensorMap& weights) {
  for (const auto& entry : std::vector<fs::directory_entry>(fs::directory_iterator(component), {})) {
    const std::string name = entry.path().filename().string();
    if (name.find(".safetensors") != std::string::npos || name.ends_with(".bin")) fs::remove(entry.path());
  }
  TensorStream stream;
  for (const auto& [name, tensor] : weights) stream[name] = streamed(tensor, std::nullopt);
  write_stream(component / "model.safetensors", stream);
}

// Lines that `sha256sum --check` reads.
void write_checksums(const fs::path& folder) {
  std::vector<std::string> names;
  for (const auto& entry : fs::recursive_directory_iterator(folder)) {
    if (entry.is_regular_file()) names.push_back(fs::relative(entry.path(), folder).generic_string());
  }
  std::sort(names.begin(), names.end());
  std::string lines;
  for (const std::string& name : names) lines += cat(runtime::sha256_file(folder / name), "  ", name, "\n");
  runtime::write_file(folder / "SHA256SUMS", lines);
}

void write_card(const fs::path& folder, const fs::path& output, const ExportRequest& request, const ExportPlan& plan,
                std::uint64_t weight_bytes) {
  CardFacts facts;
  facts.title = (output.has_filename() ? output : output.parent_path()).filename().string();
  facts.base_model = request.base_model;
  facts.file = request.format == ExportFormat::single_file ? kSingleFileName : "";
  facts.pipeline = !request.pipeline.empty() || !request.checkpoint.empty();
  facts.weight_bytes = weight_bytes;
  facts.made_by = request.made_by;
  runtime::write_file(folder / "README.md", model_card(facts, plan, request.spec));
}

// An original file has no config: every reader takes the architecture from names and shapes, and the rest from habit.
void check_readable(const ExportPlan& plan, const Program& base) {
  TensorStream names;
  TensorViews views;
  for (const ExportTensor& tensor : plan.tensors) {
    names[tensor.name] = {};
    views[tensor.name].shape = tensor.shape;
  }
  (void)original_unet(names, original_family(base.config));  // every name must have a counterpart
  std::string difference;
  try {
    const Config read = parse_config(config_from_tensors(views, "single-file"), "single-file");
    const Config own = plan.form == Form::native ? parse_config(plan.config, "config.json") : base.config;
    difference = match_programs(build_base(own, base.geometry), build_base(read, base.geometry)).difference;
  } catch (const runtime::Error& error) {
    difference = error.what();
  }
  if (difference.empty()) return;
  throw runtime::usage_error(
      "no such form: a single file says nothing of the config, and what its readers take for it ",
      "is not this model: ", difference);
}

}  // namespace

ExportFormat parse_export_format(const std::string& name) {
  if (name == "diffusers") return ExportFormat::diffusers;
  if (name == "dense-zero") return ExportFormat::dense_zero;
  if (name == "single-file") return ExportFormat::single_file;
  throw runtime::usage_error("--format ", name, ": expected diffusers, dense-zero or single-file",
                             runtime::did_you_mean(name, {"diffusers", "dense-zero", "single-file"}));
}

ExportPlan plan_export(const Spec& spec, ExportFormat format) {
  const Program base = build_base(spec.base), pruned = prune(base, spec);
  switch (format) {
    case ExportFormat::diffusers: return plan_diffusers(base, pruned);
    case ExportFormat::dense_zero: return plan_dense(base, pruned);
    case ExportFormat::single_file: break;
  }
  ExportPlan plan = plan_single_file(base, pruned);
  check_readable(plan, base);
  return plan;
}

void write_export(const fs::path& output, const ExportRequest& request, const ExportPlan& plan) {
  const TensorStream stream = unet_stream(plan, request.weights, request.storage);
  runtime::write_folder_via(output, request.existing, [&](const fs::path& folder) {
    const bool pipeline = !request.pipeline.empty();
    if (request.format == ExportFormat::single_file) {
      TensorStream original = original_unet(stream, original_family(request.spec.base));
      if (pipeline)
        add_pipeline_parts(original, {request.pipeline, request.variant, request.changed_parts}, request.storage);
      if (!request.checkpoint.empty()) add_other_parts(original, request.checkpoint, request.storage);
      write_stream(folder / kSingleFileName, original);
      check_written(folder / kSingleFileName, original);
    } else {
      if (pipeline) copy_pipeline(request.pipeline, folder, plan.library, plan.class_name, request.variant);
      for (const auto& [name, weights] : request.changed_parts) replace_weights(folder / name, weights);
      write_unet_folder(pipeline ? folder / "unet" : folder, request, plan, stream);
      if (pipeline) runtime::write_json(folder / "unet" / "spec.json", spec_json(request.spec));
    }
    runtime::write_json(folder / "spec.json", spec_json(request.spec));
    write_card(folder, output, request, plan, stream_bytes(stream));
    write_checksums(folder);
  });
}

}  // namespace laptopdiff::unet
