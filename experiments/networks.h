// The networks of one sampling: one for every timestep, or one for each interval of a spec set.
#pragma once

#include <string>
#include <vector>

#include "experiments/verbs.h"
#include "unet/executor.h"

namespace laptopdiff::experiments {

class Networks {
 public:
  // For inference; takes over the model's weights, which all share. `timesteps`: of the training schedule, which a spec
  // set must cover, from 0 on; `where` names the set. Throws Error(bad_input) where it does not.
  Networks(LoadedModel model, std::int64_t timesteps, const std::string& where);

  // By the network of the interval that `timestep` falls in; intervals hold their first timestep, not their last.
  at::Tensor forward(double timestep, const unet::Inputs& inputs) const;

 private:
  struct Network {
    int first_timestep;
    unet::Program program;
  };
  unet::Executor executor_;
  std::vector<Network> networks_;  // in order of their timesteps
};

}  // namespace laptopdiff::experiments
