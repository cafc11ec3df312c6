#include "experiments/networks.h"

#include <algorithm>

#include "runtime/error.h"

namespace laptopdiff::experiments {

Networks::Networks(const LoadedModel& model, std::int64_t timesteps, const std::string& where) {
  if (model.students.empty()) {
    networks_.push_back({0, unet::Executor(model.program, model.weights)});
    return;
  }
  const int first = model.students.front().first_timestep, last = model.students.back().last_timestep;
  if (first != 0 || last != timesteps) {
    throw runtime::input_error(where, ": its students cover the timesteps [", first, ", ", last,
                               "), the scheduler trains on [0, ", timesteps, ")");
  }
  for (const unet::Spec& student : model.students) {
    networks_.push_back({student.first_timestep, unet::Executor(unet::prune(model.base, student), model.weights)});
  }
}

const unet::Executor& Networks::at(double timestep) const {
  const auto after = std::find_if(networks_.begin() + 1, networks_.end(),
                                  [&](const Network& network) { return network.first_timestep > timestep; });
  return std::prev(after)->executor;
}

}  // namespace laptopdiff::experiments
