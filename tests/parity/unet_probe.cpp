// Hands the numbers of unet/ that no verb prints to tests/parity/test_unet_matrix.py.
//
// laptopdiff_unet_probe JOB.json, with {"jobs": [{"op": NAME, ...}]}; the results go to stdout as one JSON list.
//   count      config, height, width, tokens -> params, macs, tensors {name: shape}; reads no weights
//   load       model -> the Error that loading it throws
//   gradients  model, inputs, output: of mean((forward(inputs) - noise)^2) with respect to `sample`,
//              `encoder_hidden_states` and every parameter, with `noise` from the inputs, written to `output`
#include <torch/types.h>

#include <iostream>

#include "runtime/error.h"
#include "runtime/json.h"
#include "runtime/tensors.h"
#include "unet/executor.h"
#include "unet/weights.h"

namespace laptopdiff {
namespace {

using runtime::Json;
using runtime::TensorMap;

Json count(const Json& job) {
  const unet::Geometry geometry{job.at("height"), job.at("width"), job.at("tokens")};
  const unet::Program program = unet::build_base(unet::read_config_file(job.at("config").get<std::string>()), geometry);
  Json tensors = Json::object();
  for (const unet::Step& step : program.steps) {
    for (const unet::Parameter& parameter : unet::step_parameters(program.config, program.stages, step))
      tensors[parameter.name] = parameter.shape;
  }
  return {{"params", program.params()}, {"macs", program.macs()}, {"tensors", tensors}};
}

Json load(const Json& job) {
  try {
    unet::load_model(job.at("model").get<std::string>());
  } catch (const runtime::Error& error) {
    return {{"code", static_cast<int>(error.code())}, {"message", error.what()}};
  }
  return nullptr;
}

Json gradients(const Json& job) {
  unet::Model model = unet::load_model(job.at("model").get<std::string>());
  TensorMap leaves;
  // The mapped file must not be written to, and autograd wants leaves of its own.
  for (auto& [name, tensor] : model.weights) leaves[name] = tensor = tensor.clone().requires_grad_(true);
  const std::string path = job.at("inputs");
  const TensorMap tensors = runtime::read_tensors(path);
  unet::Inputs inputs = unet::inputs_from(tensors, model.spec.base, path);
  inputs.sample = leaves["sample"] = inputs.sample.clone().requires_grad_(true);
  if (inputs.encoder_hidden_states.defined()) {
    inputs.encoder_hidden_states = leaves["encoder_hidden_states"] =
        inputs.encoder_hidden_states.clone().requires_grad_(true);
  }
  const at::Tensor output = unet::Executor(unet::build_program(model.spec), model.weights).forward(inputs);
  const at::Tensor loss = at::mse_loss(output, tensors.at("noise"));
  loss.backward();
  TensorMap results;
  for (const auto& [name, leaf] : leaves) {
    if (leaf.grad().defined()) results[name] = leaf.grad();
  }
  runtime::write_tensors(job.at("output").get<std::string>(), results);
  return {{"loss", loss.item<double>()}};
}

Json run(const Json& job) {
  const std::string op = job.at("op");
  if (op == "count") return count(job);
  if (op == "load") return load(job);
  if (op == "gradients") return gradients(job);
  throw runtime::usage_error("unet_probe: unknown op ", op);
}

}  // namespace
}  // namespace laptopdiff

int main(int argc, char** argv) {
  try {
    if (argc != 2) throw laptopdiff::runtime::usage_error("usage: laptopdiff_unet_probe JOB.json");
    const laptopdiff::runtime::Json file = laptopdiff::runtime::read_json(argv[1]);
    laptopdiff::runtime::Json results = laptopdiff::runtime::Json::array();
    for (const auto& job : file.at("jobs")) results.push_back(laptopdiff::run(job));
    std::cout << laptopdiff::runtime::dump_json(results);
    return 0;
  } catch (const laptopdiff::runtime::Error& error) {
    std::cerr << error.what() << "\n";
    return static_cast<int>(error.code());
  }
}
