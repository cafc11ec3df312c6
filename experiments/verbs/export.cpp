// `export`: a pruned U-Net in a form that other tools load, alone or in its pipeline.
#include "unet/export.h"

#include <torch/types.h>

#include <algorithm>
#include <cstdio>
#include <iostream>

#include "diffusion/text_encoder.h"
#include "diffusion/vae.h"
#include "experiments/command.h"
#include "experiments/inputs.h"
#include "experiments/verbs.h"
#include "runtime/error.h"
#include "runtime/progress.h"
#include "unet/model_card.h"
#include "unet/pipeline_copy.h"
#include "unet/single_file.h"

namespace laptopdiff::experiments {
namespace {

namespace fs = std::filesystem;

constexpr const char* kMarker = "SHA256SUMS";  // by which an export is known

struct ExportOptions {
  std::string model, spec, unet, format = "diffusers", storage = "keep", base_model, output;
  WeightOptions weights;
  template <typename V>
  void fields(V& v) {
    v("model", model, "U-Net folder, pipeline folder (the whole pipeline comes out) or single-file checkpoint");
    v("spec", spec, "spec.json: what to remove; not needed where the model is pruned already");
    v("unet", unet, "with a pipeline: a student's folder to take the place of its unet/");
    v("format", format, "diffusers, dense-zero or single-file");
    v("storage", storage, "dtype of the written tensors: f32, f16, bf16, or keep for what is stored");
    v("base_model", base_model, "the base's name for the model card; default: what the model says, or its folder");
    v("output", output, "folder to write");
    weights.fields(v);
  }
};

std::optional<at::ScalarType> parse_storage(const std::string& name) {
  if (name == "keep") return std::nullopt;
  if (name != "f32" && name != "f16" && name != "bf16")
    throw runtime::usage_error("--storage ", name, ": expected f32, f16, bf16 or keep");
  return runtime::parse_dtype(name);
}

// The pipeline that comes along; empty for a U-Net alone.
fs::path pipeline_of(const ExportOptions& options) {
  if (fs::exists(fs::path(options.model) / "model_index.json")) return options.model;
  if (!options.unet.empty())
    throw runtime::usage_error("export: --unet needs a pipeline, and ", options.model, " has no model_index.json");
  return {};
}

// Without a removal an export converts: another format, dtype, LoRA or file. Else it would only be a copy.
bool converts(const ExportOptions& options) {
  return options.format != "diffusers" || options.storage != "keep" || !options.weights.lora.empty() ||
         !options.weights.variant.empty() || !options.unet.empty() || unet::is_single_file(options.model);
}

unet::Spec resolve_spec(const ExportOptions& options, const unet::Spec& own, const std::string& source) {
  if (options.spec.empty()) {
    if (own.removed.empty() && !converts(options))
      throw runtime::usage_error("export: --spec is missing, and nothing was removed from ", source, " yet");
    return own;
  }
  const unet::Spec given = load_spec_for(options.spec, own);
  if (!own.removed.empty() && !unet::same_spec(own, given))
    throw runtime::usage_error("--spec on a model that is pruned already, by another spec: ", source);
  return own.removed.empty() ? given : own;
}

// A student must be able to take the place of the pipeline's own U-Net.
void check_fits_pipeline(const unet::Config& student, const fs::path& pipeline, const std::string& source) {
  const unet::Config own = unet::load_architecture(pipeline).base;
  const std::pair<const char*, std::pair<int, int>> same[] = {
      {"in_channels", {student.in_channels, own.in_channels}},
      {"out_channels", {student.out_channels, own.out_channels}},
      {"cross_attention_dim", {student.context_width(), own.context_width()}},
      {"projection_class_embeddings_input_dim", {student.add_projection_dim, own.add_projection_dim}},
      {"addition_time_embed_dim", {student.addition_time_embed_dim, own.addition_time_embed_dim}}};
  if (student.model_class != own.model_class) {
    throw runtime::input_error(source, ": is a ", student.class_name(), ", the pipeline's own U-Net a ",
                               own.class_name());
  }
  for (const auto& [name, values] : same) {
    if (values.first == values.second) continue;
    throw runtime::input_error(source, ": its `", name, "` is ", values.first, ", that of the pipeline's own U-Net ",
                               values.second, "; it is of another model");
  }
}

// A single file has no configs, so nobody could tell later what lacks in it.
void check_parts(const fs::path& pipeline, const std::string& variant) {
  for (const std::string& name : unet::pipeline_components(pipeline)) {
    if (!fs::is_directory(pipeline / name)) continue;  // whoever reads it says so
    if (name == "vae") diffusion::check_vae(pipeline / name, variant);
    if (name.starts_with("text_encoder")) diffusion::check_text_model(pipeline / name, variant);
  }
}

// The hub's name of the base where the model knows it, what the card of an earlier export says, else the name of the
// model's folder or pipeline.
std::string base_name(const ExportOptions& options, const unet::Spec& spec) {
  if (!options.base_model.empty()) return options.base_model;
  for (const std::string& source : {options.unet, options.model}) {
    if (source.empty()) continue;
    const fs::path folder = fs::is_directory(source) ? fs::path(source) : fs::path(source).parent_path();
    if (const std::string first = unet::base_model_of_card(folder); !first.empty()) return first;
  }
  const Json known = spec.base.raw.value("_name_or_path", Json());
  const std::string name = known.is_string() ? known.get<std::string>() : "";
  const bool of_hub = std::count(name.begin(), name.end(), '/') == 1 && name.front() != '/' && name.front() != '.';
  if (of_hub && !fs::exists(name)) return name;
  const fs::path path = fs::weakly_canonical(options.model);
  return (path.filename() == "unet" ? path.parent_path() : path).filename().string();
}

Json summary_json(const ExportOptions& options, const unet::ExportPlan& plan, const unet::Spec& spec) {
  const Json totals = unet::spec_json(spec)["totals"];
  return {{"format", options.format},
          {"form", unet::form_name(plan.form)},
          {"why", plan.why},
          {"class", {plan.library, plan.class_name}},
          {"output", options.output},
          {"params",
           {{"base", totals["params"]["base"]}, {"pruned", totals["params"]["pruned"]}, {"stored", plan.params()}}},
          {"tensors", plan.tensors.size()}};
}

}  // namespace

void run_export(const Invocation& invocation) {
  auto [options, common, settings] = parse_command<ExportOptions>(invocation, {"model"});
  require_option(options.model, "MODEL", invocation);
  options.model = unet::single_file_of(options.model).string();
  require_option(options.output, "--output", invocation);
  unet::ExportRequest request;
  request.format = unet::parse_export_format(options.format);
  request.storage = parse_storage(options.storage);
  request.existing = common.existing();
  request.variant = options.weights.variant;
  runtime::check_own_folder(options.output, common.existing(), kMarker, "export");
  check_apart(options.output, settings, Holds::copies);
  const c10::InferenceMode inference;
  request.pipeline = pipeline_of(options);
  if (unet::is_single_file(options.model)) {
    const bool bare = unet::is_bare_unet(*unet::open_single_file(options.model));
    if (request.format == unet::ExportFormat::single_file && !bare) request.checkpoint = options.model;
    if (request.format != unet::ExportFormat::single_file)
      runtime::say(runtime::cat("export: only the U-Net of ", options.model, " is written as a folder"));
  }
  const std::string source = options.unet.empty() ? options.model : options.unet;
  request.spec = resolve_spec(options, unet::load_architecture(source), source);
  if (!options.unet.empty()) check_fits_pipeline(request.spec.base, request.pipeline, source);
  const unet::ExportPlan plan = unet::plan_export(request.spec, request.format);
  if (request.format == unet::ExportFormat::single_file && !request.pipeline.empty())
    check_parts(request.pipeline, request.variant);
  const Json summary = summary_json(options, plan, request.spec);
  if (!common.dry_run) {
    if (request.pipeline.empty()) refuse_text_lora(options.weights);
    else request.changed_parts = load_merged_text(request.pipeline, options.weights);
    WeightOptions weights = options.weights;
    if (!options.unet.empty()) weights.variant = unet::available_variant(source, weights.variant);
    request.weights = load_merged_weights(source, request.spec, options.spec, weights);
    request.base_model = base_name(options, request.spec);
    request.made_by = provenance(invocation);
    unet::write_export(options.output, request, plan);
  }
  if (common.json) {
    std::cout << runtime::dump_json(summary);
    return;
  }
  std::printf("%s%s: %s form, %s\n  %s of %s params in %zu tensors, class %s\n", common.dry_run ? "would write " : "",
              options.output.c_str(), unet::form_name(plan.form), plan.why.c_str(),
              runtime::with_commas(plan.params()).c_str(),
              runtime::with_commas(summary["params"]["base"].get<std::int64_t>()).c_str(), plan.tensors.size(),
              plan.class_name.c_str());
}

}  // namespace laptopdiff::experiments
