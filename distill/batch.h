// Training batches as pure functions of (seed, step, sample): nothing is carried from one step to the next.
#pragma once

#include <cstdint>
#include <vector>

#include "diffusion/noise_schedule.h"
#include "distill/latent_cache.h"
#include "unet/executor.h"

namespace laptopdiff::distill {

struct Batch {
  unet::Inputs inputs;  // x_t, t, text
  at::Tensor noise;     // what was added
  at::Tensor target;    // what the network should predict: noise, v or x0
};

class BatchMaker {
 public:
  // Timesteps are uniform over [first, last).
  BatchMaker(const LatentCache& cache, const diffusion::NoiseSchedule& schedule, std::uint64_t seed, std::int64_t first,
             std::int64_t last, at::Device device)
      : cache_(cache), schedule_(schedule), seed_(seed), first_(first), last_(last), device_(device) {}

  // Samples [begin, end) of the endless stream: sample k is picture perm(k / N)[k mod N], so that every picture is seen
  // once an epoch. Timestep, latent and noise of sample k depend on (seed, k) alone.
  Batch make(std::int64_t begin, std::int64_t end);

 private:
  std::int64_t picture(std::int64_t sample);
  at::Tensor normals(std::uint32_t purpose, std::int64_t begin, std::int64_t end) const;

  const LatentCache& cache_;
  const diffusion::NoiseSchedule& schedule_;
  std::uint64_t seed_;
  std::int64_t first_, last_;
  at::Device device_;
  std::int64_t epoch_ = -1;
  std::vector<std::int64_t> order_;
};

}  // namespace laptopdiff::distill
