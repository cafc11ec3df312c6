#include "unet/model_card.h"

#include <sstream>

#include "runtime/file.h"
#include "runtime/progress.h"

namespace laptopdiff::unet {
namespace {

using runtime::percent;
using runtime::with_commas;

constexpr const char* kFence = "---";
constexpr std::string_view kBaseModel = "base_model: ";
constexpr const char* kOurTag = "- laptopdiff";

// A JSON string is a YAML string.
std::string quoted(const std::string& text) { return Json(text).dump(-1, ' ', false, Json::error_handler_t::replace); }

void header(std::ostream& out, const CardFacts& facts, const Spec& spec) {
  const bool text_to_image = facts.pipeline && spec.base.model_class == ModelClass::conditional;
  out << "---\n";
  if (!facts.base_model.empty()) out << kBaseModel << quoted(facts.base_model) << "\n";
  out << "library_name: diffusers\n";
  if (text_to_image) out << "pipeline_tag: text-to-image\n";
  out << "tags:\n" << kOurTag << "\n- layer-pruning\n- diffusion\n---\n\n";
}

void sizes(std::ostream& out, const CardFacts& facts, const ExportPlan& plan, const Program& base,
           const Program& pruned) {
  const auto row = [&](const char* name, std::int64_t whole, std::int64_t left) {
    out << "| " << name << " | " << with_commas(whole) << " | " << with_commas(left) << " | " << percent(left, whole)
        << " |\n";
  };
  out << "## Size\n\n| U-Net | base | this | kept |\n|---|---|---|---|\n";
  row("parameters in use", base.params(), pruned.params());
  row("MACs a call", base.macs(), pruned.macs());
  out << "\nThe file holds " << with_commas(plan.params()) << " U-Net parameters in "
      << with_commas(static_cast<std::int64_t>(facts.weight_bytes)) << " bytes";
  out << (plan.form == Form::dense && plan.params() != pruned.params() ? "; those of removed layers are zero.\n\n"
                                                                       : ".\n\n");
}

void removals(std::ostream& out, const Spec& spec) {
  out << "## What was removed\n\n";
  if (spec.removed.empty()) out << "Nothing.\n";
  for (const Removal& removal : spec.removed)
    out << "- `" << removal.layer << "` (" << (removal.how == How::drop ? "drop" : "bypass") << ")\n";
  out << "\nNames are paths in the base model. `bypass` leaves a layer's skip branch in place, `drop` takes the layer "
         "with its skip connection";
  out << (spec.shell == Shell::keep ? "; the projections around emptied transformers are kept" : "")
      << ". spec.json says the same for programs.\n\n";
}

void loading(std::ostream& out, const CardFacts& facts, const ExportPlan& plan) {
  out << "## How to load\n\n";
  if (!facts.file.empty()) {
    out << "`" << facts.file << "` has the tensor names of original single-file checkpoints: "
        << (plan.form == Form::dense ? "any tool that reads the base model's checkpoint reads it."
                                     : "stable-diffusion.cpp recognises its shape.")
        << (facts.pipeline ? "\n\n" : " It holds the U-Net alone.\n\n");
    return;
  }
  const bool custom = plan.form == Form::custom;
  const std::string trust = custom ? ", trust_remote_code=True" : "";
  if (custom) {
    out << "diffusers has no config for this architecture (" << plan.why << "), so the folder brings its class, `"
        << kPrunedModule << ".py`.\n\n";
  }
  out << "```python\n";
  if (facts.pipeline) out << "from diffusers import DiffusionPipeline\n\npipeline = DiffusionPipeline";
  else out << "from diffusers import AutoModel\n\nunet = AutoModel";
  out << ".from_pretrained(\"path/to/this/folder\"" << trust << ")\n```\n\n";
}

void provenance(std::ostream& out, const CardFacts& facts, const ExportPlan& plan, const Spec& spec) {
  out << "## How it was made\n\nForm: " << form_name(plan.form) << " (" << plan.why << ").\n\n";
  const auto block = [&](const char* what, const Json& value) {
    if (!value.is_null() && !value.empty())
      out << what << "\n\n```json\n" << value.dump(2, ' ', false, Json::error_handler_t::replace) << "\n```\n\n";
  };
  block("The spec:", spec.made_by);
  block("This export:", facts.made_by);
}

}  // namespace

std::string base_model_of_card(const std::filesystem::path& folder) {
  const auto file = folder / "README.md";
  if (!std::filesystem::is_regular_file(file)) return "";
  std::istringstream lines(runtime::read_file(file));
  std::string line, base;
  bool ours = false;
  if (!std::getline(lines, line) || line != kFence) return "";
  while (std::getline(lines, line) && line != kFence) {
    ours = ours || line == kOurTag;
    if (!line.starts_with(kBaseModel)) continue;
    const Json name = Json::parse(line.substr(kBaseModel.size()), nullptr, /*allow_exceptions=*/false);
    if (name.is_string()) base = name.get<std::string>();
  }
  return ours ? base : "";
}

std::string model_card(const CardFacts& facts, const ExportPlan& plan, const Spec& spec) {
  const Program base = build_base(spec.base), pruned = prune(base, spec);
  std::ostringstream out;
  header(out, facts, spec);
  out << "# " << facts.title << "\n\nA " << spec.base.class_name() << " with " << spec.removed.size()
      << (spec.removed.size() == 1 ? " entry" : " entries") << " removed by laptopdiff.\n\n";
  sizes(out, facts, plan, base, pruned);
  removals(out, spec);
  loading(out, facts, plan);
  provenance(out, facts, plan, spec);
  std::string text = out.str();
  text.pop_back();
  return text;
}

}  // namespace laptopdiff::unet
