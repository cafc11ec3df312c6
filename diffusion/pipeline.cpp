#include "diffusion/pipeline.h"

#include <torch/types.h>

#include <algorithm>

#include "diffusion/component.h"
#include "diffusion/image.h"
#include "diffusion/single_file.h"
#include "runtime/error.h"
#include "runtime/progress.h"
#include "unet/single_file.h"

namespace laptopdiff::diffusion {
namespace fs = std::filesystem;
using runtime::input_error;
using runtime::Json;

namespace {

// What a component may be, and whether each kind of pipeline has it.
struct ComponentRow {
  const char* name;
  std::vector<std::string> classes;
  bool in_unconditional, in_sd, in_xl;
};

const std::vector<ComponentRow>& component_rows() {
  static const std::vector<ComponentRow> rows = {
      {"unet",
       {"UNet2DConditionModel", "UNet2DModel", "PrunedUNet2DConditionModel", "PrunedUNet2DModel"},
       true,
       true,
       true},
      {"scheduler", {}, true, true, true},
      {"vae", {"AutoencoderKL"}, false, true, true},
      {"text_encoder", {"CLIPTextModel", "CLIPTextModelWithProjection"}, false, true, true},
      {"tokenizer", {"CLIPTokenizer", "CLIPTokenizerFast"}, false, true, true},
      {"text_encoder_2", {"CLIPTextModelWithProjection"}, false, false, true},
      {"tokenizer_2", {"CLIPTokenizer", "CLIPTokenizerFast"}, false, false, true},
  };
  return rows;
}

// "" where the index has no such component, or an absent one ([null, null]).
std::string component_class(const Json& index, const std::string& name, const std::string& where) {
  if (!index.contains(name)) return "";
  const Json& entry = index[name];
  if (!entry.is_array() || entry.size() != 2) {
    throw input_error(where, ": `", name, "`: expected [library, class], got ", entry.dump());
  }
  if (entry[1].is_null()) return "";
  return runtime::ObjectReader::convert<std::string>(entry[1], where + ": `" + name + "`");
}

// A component's folder. Early unconditional models keep config and weights at the top level.
fs::path component_folder(const fs::path& folder, const std::string& name) {
  if (fs::is_directory(folder / name)) return folder / name;
  const char* config = name == "scheduler" ? "scheduler_config.json" : "config.json";
  const bool may_be_flat = name == "scheduler" || name == "unet";
  return may_be_flat && fs::exists(folder / config) ? folder : folder / name;
}

enum class Family { unconditional, stable_diffusion, stable_diffusion_xl };

Family family_of(const Json& index, const std::string& where) {
  if (!component_class(index, "text_encoder_2", where).empty()) return Family::stable_diffusion_xl;
  if (!component_class(index, "text_encoder", where).empty()) return Family::stable_diffusion;
  return Family::unconditional;
}

// Parts of a pipeline that change no picture here: a filter of results, and what image prompts need.
bool is_bystander(const std::string& name) {
  return name == "safety_checker" || name == "feature_extractor" || name == "image_encoder";
}

// Lists everything that is wrong with the components at once.
void check_components(const Json& index, Family family, const fs::path& folder, const std::string& where) {
  std::vector<std::string> problems;
  for (const ComponentRow& row : component_rows()) {
    const bool needed = family == Family::unconditional      ? row.in_unconditional
                        : family == Family::stable_diffusion ? row.in_sd
                                                             : row.in_xl;
    const std::string class_name = component_class(index, row.name, where);
    if (class_name.empty()) {
      if (needed) problems.push_back(runtime::cat(row.name, " is missing"));
      continue;
    }
    const bool known =
        row.classes.empty() || std::find(row.classes.begin(), row.classes.end(), class_name) != row.classes.end();
    if (!known) {
      problems.push_back(
          runtime::cat(row.name, " is a ", class_name, ", expected ", runtime::join(row.classes, " or ")));
    } else if (!fs::is_directory(component_folder(folder, row.name))) {
      problems.push_back(runtime::cat("the folder ", row.name, "/ is missing"));
    } else if (!needed) {
      problems.push_back(runtime::cat(row.name, " (", class_name, ") has no place beside the others"));
    }
  }
  for (const auto& [name, entry] : index.items()) {
    const bool component = !name.starts_with("_") && entry.is_array() && entry.size() == 2 && entry[1].is_string();
    const auto& rows = component_rows();
    const bool known = std::any_of(rows.begin(), rows.end(), [&](const ComponentRow& row) { return name == row.name; });
    if (component && !known && !is_bystander(name))
      problems.push_back(runtime::cat(name.substr(0, 60), " (", entry[1].dump().substr(0, 60), ") is not known"));
  }
  if (!problems.empty()) throw input_error(where, ": this pipeline cannot be read: ", runtime::join(problems, "; "));
}

TextTower load_tower(const fs::path& folder, const char* tokenizer, const char* encoder, const std::string& variant) {
  return make_tower(folder / tokenizer, load_text_model(folder / encoder, variant), encoder);
}

// A U-Net's own folder with a scheduler's config beside it, and no index.
std::optional<Pipeline> load_flat(const fs::path& folder) {
  if (!fs::exists(folder / "config.json")) return std::nullopt;
  const Json config = runtime::read_json(folder / "config.json");
  runtime::ObjectReader in(config, (folder / "config.json").string());
  if (in.get<std::string>("_class_name", "") != "UNet2DModel") return std::nullopt;
  Pipeline pipeline;
  pipeline.folder = pipeline.unet_folder = folder;
  pipeline.class_name = "DDPMPipeline";
  pipeline.unet_class = "UNet2DModel";
  pipeline.scheduler_config = read_scheduler_config(folder / "scheduler_config.json");
  return pipeline;
}

// Hidden states after the one that conditions: XL's towers stop one block early.
constexpr std::int64_t kXlUnusedLayers = 1;

// XL conditions on the bare state, SD 1/2 on the state after the final norm.
at::Tensor conditioning_state(ClipTextModel& model, const TextOutput& output, bool is_xl, std::int64_t clip_skip) {
  const std::int64_t from_end = clip_skip + 1 + (is_xl ? kXlUnusedLayers : 0);
  const at::Tensor& state = output.hidden_states[output.hidden_states.size() - static_cast<std::size_t>(from_end)];
  return is_xl ? state : model->final_norm(state);
}

}  // namespace

void overrule_outdated(Json& scheduler, const std::string& where) {
  if (!scheduler.is_object()) return;  // Scheduler::make refuses it
  const std::pair<const char*, Json> settings[] = {{"steps_offset", 1}, {"clip_sample", false}};
  for (const auto& [key, value] : settings) {
    if (scheduler.contains(key) && scheduler[key] != value) {
      runtime::warn(runtime::cat(where, ": `", key, "` ", scheduler[key].dump(), " is outdated; ", value.dump(),
                                 " is used, as in diffusers"));
    }
    scheduler[key] = value;
  }
}

TextTower make_tower(const fs::path& tokenizer, ClipTextModel model, const std::string& encoder) {
  TextTower tower{Tokenizer::load(tokenizer), std::move(model)};
  const auto vocabulary = tower.model->config().vocab_size;
  if (tower.tokenizer.vocabulary_size() > vocabulary) {
    throw input_error(tokenizer.string(), ": has token ids up to ", tower.tokenizer.vocabulary_size() - 1, ", but ",
                      encoder, " has a vocabulary of ", vocabulary);
  }
  if (tower.tokenizer.max_length() > tower.model->config().max_position_embeddings) {
    throw input_error(tokenizer.string(), ": pads to ", tower.tokenizer.max_length(), " tokens, but ", encoder, " has ",
                      tower.model->config().max_position_embeddings, " positions");
  }
  return tower;
}

Pipeline Pipeline::load(const fs::path& folder, Parts parts, const PipelineFiles& files) {
  if (unet::is_single_file(folder)) {
    return load_single_file(folder, files.config_folder.empty() ? folder.parent_path() : files.config_folder, parts);
  }
  if (!files.config_folder.empty()) {
    throw runtime::usage_error("--pipeline-config is for single-file checkpoints; ", folder.string(), " is a folder");
  }
  const fs::path index_path = folder / "model_index.json";
  if (!fs::exists(index_path)) {
    if (auto flat = load_flat(folder)) return std::move(*flat);
    if (const fs::path file = unet::single_file_of(folder); file != folder) {
      throw input_error(folder.string(), ": not a pipeline folder but that of a single file; give ", file.string(),
                        ", and its tokenizer and scheduler with --pipeline-config");
    }
    throw input_error(folder.string(),
                      ": not a pipeline folder: no model_index.json; expected a folder that diffusers' "
                      "save_pretrained made from a whole pipeline");
  }
  const std::string where = index_path.string();
  const Json index = runtime::read_json(index_path);
  runtime::ObjectReader in(index, where);
  Pipeline pipeline;
  pipeline.folder = folder;
  pipeline.class_name = in.required<std::string>("_class_name");
  const Family family = family_of(index, where);
  check_components(index, family, folder, where);
  pipeline.unet_folder = component_folder(folder, "unet");
  pipeline.unet_class = component_class(index, "unet", where);
  pipeline.scheduler_config = read_scheduler_config(component_folder(folder, "scheduler") / "scheduler_config.json");
  pipeline.zeros_for_empty_prompt = in.get("force_zeros_for_empty_prompt", family == Family::stable_diffusion_xl);
  if (parts == Parts::config_only || family == Family::unconditional) return pipeline;
  if (family == Family::stable_diffusion) overrule_outdated(pipeline.scheduler_config, where);
  pipeline.text.push_back(load_tower(folder, "tokenizer", "text_encoder", files.variant));
  if (family == Family::stable_diffusion_xl)
    pipeline.text.push_back(load_tower(folder, "tokenizer_2", "text_encoder_2", files.variant));
  if (pipeline.is_xl() && !pipeline.text.back().model->config().has_projection)
    throw input_error(where, ": text_encoder_2 has no projection, which gives the U-Net its pooled text");
  if (parts == Parts::all) pipeline.vae = load_vae(folder / "vae", files.variant);
  return pipeline;
}

std::int64_t Pipeline::max_clip_skip() const {
  std::int64_t layers = text.empty() ? 0 : text.front().model->config().num_hidden_layers;
  for (const TextTower& tower : text) layers = std::min(layers, tower.model->config().num_hidden_layers);
  return is_xl() ? layers - kXlUnusedLayers : layers;
}

EncodedPrompts Pipeline::encode_prompts(const std::vector<std::string>& texts, std::int64_t clip_skip) {
  TORCH_CHECK(!text.empty(), "encode_prompts: this pipeline has no text encoder");
  TORCH_CHECK(clip_skip >= 0 && clip_skip <= max_clip_skip(), "encode_prompts: clip_skip ", clip_skip,
              ", expected 0 to ", max_clip_skip());
  const at::NoGradGuard no_grad;
  std::vector<at::Tensor> states;
  EncodedPrompts out;
  for (TextTower& tower : text) {
    const TextOutput output = tower.model(encode_batch(tower.tokenizer, texts).to(device()));
    states.push_back(conditioning_state(tower.model, output, is_xl(), clip_skip));
    if (is_xl()) out.pooled = output.text_embeds;
  }
  out.context = states.size() == 1 ? states[0] : at::cat(states, -1);
  return out;
}

EncodedPrompts Pipeline::encode_unconditional() {
  EncodedPrompts out = encode_prompts({""});
  if (!is_xl() || !zeros_for_empty_prompt) return out;
  return {at::zeros_like(out.context), at::zeros_like(out.pooled)};
}

at::Tensor Pipeline::to_images(const at::Tensor& samples) {
  const at::NoGradGuard no_grad;
  if (!vae) return to_u8(samples);
  const at::Tensor images = (*vae)->decode(samples.to(at::kFloat) / (*vae)->scaling_factor(), vae_tiling);
  if (!at::isfinite(images).all().item<bool>())
    throw runtime::non_finite_error(folder.string(), ": the VAE's pictures hold NaN or Inf, though its weights do not");
  return to_u8(images);
}

Moments Pipeline::encode_images(const at::Tensor& images) {
  TORCH_CHECK(vae, "encode_images: this pipeline has no VAE");
  const at::NoGradGuard no_grad;
  return (*vae)->encode_moments(from_u8(images).to(device()), vae_tiling);
}

void Pipeline::to(c10::Device target) {
  for (TextTower& tower : text) tower.model->to(target);
  if (vae) (*vae)->to(target);
}

c10::Device Pipeline::device() const {
  if (vae) return (*vae)->parameters().front().device();
  return text.empty() ? c10::Device(c10::kCPU) : text.front().model->parameters().front().device();
}

}  // namespace laptopdiff::diffusion
