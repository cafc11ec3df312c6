#include "diffusion/pipeline.h"

#include <torch/types.h>

#include "diffusion/component.h"
#include "diffusion/image.h"
#include "runtime/error.h"

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
      {"unet", {"UNet2DConditionModel", "UNet2DModel"}, true, true, true},
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
    }
  }
  if (!problems.empty()) throw input_error(where, ": this pipeline cannot be read: ", runtime::join(problems, "; "));
}

TextTower load_tower(const fs::path& folder, const char* tokenizer, const char* encoder) {
  TextTower tower{Tokenizer::load(folder / tokenizer), load_text_model(folder / encoder)};
  const auto vocabulary = tower.model->config().vocab_size;
  if (tower.tokenizer.vocabulary_size() > vocabulary) {
    throw input_error((folder / tokenizer).string(), ": has token ids up to ", tower.tokenizer.vocabulary_size() - 1,
                      ", but ", encoder, " has a vocabulary of ", vocabulary);
  }
  if (tower.tokenizer.max_length() > tower.model->config().max_position_embeddings) {
    throw input_error((folder / tokenizer).string(), ": pads to ", tower.tokenizer.max_length(), " tokens, but ",
                      encoder, " has ", tower.model->config().max_position_embeddings, " positions");
  }
  return tower;
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

// The two XL towers' penultimate states, without the final norm, or the one tower's last state, with it.
at::Tensor conditioning_state(const TextOutput& output, bool is_xl) {
  return is_xl ? output.hidden_states[output.hidden_states.size() - 2] : output.last_hidden_state;
}

}  // namespace

Pipeline Pipeline::load(const fs::path& folder, Parts parts) {
  const fs::path index_path = folder / "model_index.json";
  if (!fs::exists(index_path)) {
    if (auto flat = load_flat(folder)) return std::move(*flat);
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
  pipeline.text.push_back(load_tower(folder, "tokenizer", "text_encoder"));
  if (family == Family::stable_diffusion_xl)
    pipeline.text.push_back(load_tower(folder, "tokenizer_2", "text_encoder_2"));
  if (parts == Parts::all) pipeline.vae = load_vae(folder / "vae");
  return pipeline;
}

EncodedPrompts Pipeline::encode_prompts(const std::vector<std::string>& texts) {
  TORCH_CHECK(!text.empty(), "encode_prompts: this pipeline has no text encoder");
  const at::NoGradGuard no_grad;
  std::vector<at::Tensor> states;
  EncodedPrompts out;
  for (TextTower& tower : text) {
    const TextOutput output = tower.model(encode_batch(tower.tokenizer, texts).to(device()));
    states.push_back(conditioning_state(output, is_xl()));
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
  return to_u8((*vae)->decode(samples / (*vae)->scaling_factor()));
}

Moments Pipeline::encode_images(const at::Tensor& images) {
  TORCH_CHECK(vae, "encode_images: this pipeline has no VAE");
  const at::NoGradGuard no_grad;
  return (*vae)->encode_moments(from_u8(images).to(device()));
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
