#include "experiments/networks.h"

#include <algorithm>

#include "runtime/error.h"

namespace laptopdiff::experiments {

Networks::Networks(LoadedModel model, std::int64_t timesteps, const std::string& where)
    : executor_(unet::Executor::for_inference(model.program, std::move(model.weights))) {
  if (model.students.empty()) {
    networks_.push_back({0, std::move(model.program)});
    return;
  }
  const int first = model.students.front().first_timestep, last = model.students.back().last_timestep;
  if (first != 0 || last != timesteps) {
    throw runtime::input_error(where, ": its students cover the timesteps [", first, ", ", last,
                               "), the scheduler trains on [0, ", timesteps, ")");
  }
  for (const unet::Spec& student : model.students)
    networks_.push_back({student.first_timestep, unet::prune(model.base, student)});
}

at::Tensor Networks::forward(double timestep, const unet::Inputs& inputs) const {
  const auto after = std::find_if(networks_.begin() + 1, networks_.end(),
                                  [&](const Network& network) { return network.first_timestep > timestep; });
  return executor_.forward(std::prev(after)->program, inputs);
}

}  // namespace laptopdiff::experiments
