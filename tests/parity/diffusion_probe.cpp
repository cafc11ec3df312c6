// Hands the numbers of diffusion/ to tests/parity/test_diffusion.py.
//
// laptopdiff_diffusion_probe JOB.json, with
//   {"inputs": FILE, "output": FILE, "jobs": [{"op": NAME, ...}]}
// Tensors come from `inputs` and go to `output`, each named by its job; text results go to stdout as one JSON list.
#include <torch/types.h>

#include <iostream>

#include "diffusion/image.h"
#include "diffusion/pipeline.h"
#include "diffusion/sampler.h"
#include "diffusion/scheduler.h"
#include "diffusion/text_encoder.h"
#include "diffusion/tokenizer.h"
#include "diffusion/vae.h"
#include "runtime/error.h"
#include "runtime/json.h"
#include "runtime/tensors.h"

namespace laptopdiff {
namespace {

using runtime::Json;
using runtime::TensorMap;

struct Files {
  TensorMap inputs, outputs;
};

Json tokenize(const Json& job) {
  const auto tokenizer = diffusion::Tokenizer::load(job.at("folder").get<std::string>());
  Json result = {{"ids", Json::array()}, {"encoded", Json::array()}};
  for (const auto& text : job.at("texts")) {
    result["ids"].push_back(tokenizer.ids(text.get<std::string>()));
    result["encoded"].push_back(tokenizer.encode(text.get<std::string>()));
  }
  return result;
}

Json text(const Json& job, Files& files) {
  auto model = diffusion::load_text_model(job.at("folder").get<std::string>());
  const auto output = model(files.inputs.at(job.at("ids").get<std::string>()));
  const std::string name = job.at("name");
  files.outputs[name + ".last"] = output.last_hidden_state;
  files.outputs[name + ".pooled"] = output.pooled;
  if (output.text_embeds.defined()) files.outputs[name + ".embeds"] = output.text_embeds;
  for (std::size_t i = 0; i < output.hidden_states.size(); ++i) {
    files.outputs[name + ".hidden." + std::to_string(i)] = output.hidden_states[i];
  }
  return nullptr;
}

Json vae(const Json& job, Files& files) {
  auto model = diffusion::load_vae(job.at("folder").get<std::string>());
  const std::string name = job.at("name");
  const auto tiling = job.value("tiling", false) ? diffusion::Tiling::on : diffusion::Tiling::off;
  const auto moments = model->encode_moments(files.inputs.at(job.at("images").get<std::string>()), tiling);
  files.outputs[name + ".mean"] = moments.mean;
  files.outputs[name + ".logvar"] = moments.logvar;
  files.outputs[name + ".decoded"] = model->decode(files.inputs.at(job.at("latents").get<std::string>()), tiling);
  return Json{{"scaling_factor", model->scaling_factor()}};
}

// The network of the sampler tests: slope * input + t * 1e-5, bent by tanh where the job says so.
at::Tensor toy_network(const Json& job, const at::Tensor& input, double timestep) {
  const at::Tensor t = at::scalar_tensor(static_cast<float>(timestep));
  const at::Tensor line = 0.3 * input + t * 1e-5;
  return job.value("tanh", false) ? at::tanh(line) : line;
}

Json sampler(const Json& job, Files& files) {
  const Json config = job.contains("config_file")
                          ? diffusion::read_scheduler_config(job["config_file"].get<std::string>())
                          : job.at("config");
  std::optional<diffusion::SchedulerKind> kind;
  if (job.contains("kind")) kind = diffusion::parse_scheduler_kind(job["kind"]);
  const auto scheduler = diffusion::Scheduler::make(config, kind);
  scheduler->set_timesteps(job.at("steps").get<std::int64_t>());
  at::Tensor x = files.inputs.at(job.at("start").get<std::string>()) * scheduler->init_noise_sigma();
  std::vector<at::Tensor> path;
  for (std::int64_t i = 0; i < static_cast<std::int64_t>(scheduler->timesteps().size()); ++i) {
    const double t = scheduler->timesteps()[static_cast<std::size_t>(i)];
    diffusion::StepOptions options{job.value("eta", 0.0), [&] { return files.inputs.at("step_noise")[i]; }};
    x = scheduler->step(toy_network(job, scheduler->scale_model_input(x, i), t), i, x, options);
    path.push_back(x);
  }
  files.outputs[job.at("name").get<std::string>()] = at::stack(path);
  return Json{{"timesteps", scheduler->timesteps()}, {"init_noise_sigma", scheduler->init_noise_sigma()}};
}

Json schedule(const Json& job, Files& files) {
  const auto schedule = diffusion::noise_schedule(job.at("config"));
  const std::string name = job.at("name");
  const at::Tensor x0 = files.inputs.at("x0"), noise = files.inputs.at("noise"), t = files.inputs.at("timesteps");
  files.outputs[name + ".alphas_cumprod"] = schedule.alphas_cumprod;
  files.outputs[name + ".noisy"] = diffusion::add_noise(schedule, x0, noise, t);
  files.outputs[name + ".velocity"] = diffusion::velocity(schedule, x0, noise, t);
  return nullptr;
}

Json prompts(const Json& job, Files& files) {
  auto pipeline = diffusion::Pipeline::load(job.at("folder").get<std::string>());
  const std::string name = job.at("name");
  const auto encoded = pipeline.encode_prompts(job.at("texts").get<std::vector<std::string>>());
  const auto unconditional = pipeline.encode_unconditional();
  files.outputs[name + ".context"] = encoded.context;
  files.outputs[name + ".unconditional"] = unconditional.context;
  if (encoded.pooled.defined()) files.outputs[name + ".pooled"] = encoded.pooled;
  if (unconditional.pooled.defined()) files.outputs[name + ".unconditional_pooled"] = unconditional.pooled;
  return Json{{"class", pipeline.class_name}, {"unet_class", pipeline.unet_class}, {"xl", pipeline.is_xl()}};
}

// Guided sampling with the toy network made to depend on the context, and the images at the end.
Json guided(const Json& job, Files& files) {
  auto pipeline = diffusion::Pipeline::load(job.at("folder").get<std::string>());
  const auto texts = job.at("texts").get<std::vector<std::string>>();
  const std::string name = job.at("name");
  const auto scheduler = diffusion::Scheduler::make(pipeline.scheduler_config, std::nullopt);
  diffusion::SampleOptions options;
  options.latents = files.inputs.at(job.at("start").get<std::string>());
  options.count = static_cast<std::int64_t>(texts.size());
  options.batch = job.at("batch");
  options.steps = job.at("steps");
  options.guidance = job.at("guidance");
  options.shape = options.latents.sizes().slice(1).vec();
  const auto network = [](const at::Tensor& x, double t, const diffusion::Context& context) {
    return 0.3 * x + t * 1e-5 + context.encoder_hidden_states.mean({1, 2}).view({-1, 1, 1, 1});
  };
  const auto conditioning = [&](std::int64_t first, std::int64_t count) {
    const std::vector<std::string> some(texts.begin() + first, texts.begin() + first + count);
    return diffusion::Conditioning{{pipeline.encode_prompts(some).context, {}, {}, {}},
                                   {pipeline.encode_unconditional().context, {}, {}, {}}};
  };
  std::vector<at::Tensor> samples;
  diffusion::sample(*scheduler, network, conditioning, options,
                    [&](std::int64_t, const at::Tensor& batch) { samples.push_back(batch.clone()); });
  files.outputs[name + ".samples"] = at::cat(samples);
  files.outputs[name + ".images"] = pipeline.to_images(at::cat(samples));
  return nullptr;
}

// What `sample` adds at each call: [calls, images, C, h, w].
Json noise(const Json& job, Files& files) {
  const auto shape = job.at("shape").get<std::vector<std::int64_t>>();
  std::vector<at::Tensor> calls;
  for (std::int64_t index = 0; index < job.at("calls").get<std::int64_t>(); ++index) {
    std::vector<at::Tensor> rows;
    for (std::int64_t image = 0; image < job.at("images").get<std::int64_t>(); ++image) {
      rows.push_back(diffusion::step_noise(job.at("seed").get<std::uint64_t>(), index, image, shape));
    }
    calls.push_back(at::stack(rows));
  }
  files.outputs[job.at("name").get<std::string>()] = at::stack(calls);
  return nullptr;
}

Json png(const Json& job, Files& files) {
  const at::Tensor image = diffusion::read_png(job.at("read").get<std::string>());
  files.outputs[job.at("name").get<std::string>()] = image;
  if (job.contains("write")) diffusion::write_png(job["write"].get<std::string>(), image);
  return nullptr;
}

Json run(const Json& job, Files& files) {
  const std::string op = job.at("op");
  if (op == "tokenize") return tokenize(job);
  if (op == "text") return text(job, files);
  if (op == "vae") return vae(job, files);
  if (op == "sampler") return sampler(job, files);
  if (op == "schedule") return schedule(job, files);
  if (op == "prompts") return prompts(job, files);
  if (op == "guided") return guided(job, files);
  if (op == "noise") return noise(job, files);
  if (op == "png") return png(job, files);
  throw runtime::usage_error("diffusion_probe: unknown op ", op);
}

void run_all(const std::string& path) {
  const Json file = runtime::read_json(path);
  Files files;
  files.inputs = runtime::read_tensors(file.at("inputs").get<std::string>());
  Json results = Json::array();
  for (const Json& job : file.at("jobs")) results.push_back(run(job, files));
  runtime::write_tensors(file.at("output").get<std::string>(), files.outputs);
  std::cout << runtime::dump_json(results);
}

}  // namespace
}  // namespace laptopdiff

int main(int count, char** arguments) {
  try {
    if (count != 2) throw laptopdiff::runtime::usage_error("usage: laptopdiff_diffusion_probe JOB.json");
    const c10::InferenceMode inference;
    laptopdiff::run_all(arguments[1]);
    return 0;
  } catch (const laptopdiff::runtime::Error& error) {
    std::cerr << error.what() << "\n";
    return static_cast<int>(error.code());
  }
}
