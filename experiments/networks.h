// The networks of one sampling: one for every timestep, or one for each interval of a spec set.
#pragma once

#include <string>
#include <vector>

#include "experiments/verbs.h"
#include "unet/executor.h"

namespace laptopdiff::experiments {

class Networks {
 public:
  // All on `model`'s weights, which they share. `timesteps`: of the training schedule, which a spec set must cover,
  // from 0 on; `where` names the set. Throws Error(bad_input) where it does not.
  Networks(const LoadedModel& model, std::int64_t timesteps, const std::string& where);

  // The network of the interval that `timestep` falls in; intervals hold their first timestep, not their last.
  const unet::Executor& at(double timestep) const;

  std::size_t size() const { return networks_.size(); }

 private:
  struct Network {
    int first_timestep;
    unet::Executor executor;
  };
  std::vector<Network> networks_;  // in order of their timesteps
};

}  // namespace laptopdiff::experiments
