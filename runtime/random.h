// Counter-based random numbers: every draw is a pure function of (seed, purpose, step, sample, index).
//
// Nothing is carried from one draw to the next, so resuming, sharding and reordering cannot change a value. The
// generator is Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC'11).
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <vector>

namespace laptopdiff::runtime {

// What a draw is for; different purposes never share a stream. The values are part of the file formats: never renumber.
enum class Purpose : std::uint32_t {
  data_order = 1,
  timestep = 2,
  noise = 3,
  latent_sample = 4,
  initial_latents = 5,
  sampler_noise = 6,
  caption_dropout = 7,
  flip = 8,
  bootstrap = 9,
  random_mask = 10,
  random_score = 11,
  calibration_pick = 12,
  test = 13,
  metric_split = 14,
};

// One Philox4x32-10 block: four 32-bit words from a 128-bit counter and a 64-bit key.
std::array<std::uint32_t, 4> philox4x32(std::array<std::uint32_t, 4> counter, std::array<std::uint32_t, 2> key);

// The stream of one (seed, purpose, step, sample). Calls advance it; copies replay it.
class Stream {
 public:
  Stream(std::uint64_t seed, Purpose purpose, std::uint64_t step = 0, std::uint64_t sample = 0);

  std::uint32_t next_u32();
  // Uniform in [0, 1) with 24 bits.
  float uniform();
  // Uniform in [0, n), without bias. n must not be 0.
  std::uint64_t below(std::uint64_t n);
  // Standard normal by Box-Muller in double precision, rounded once.
  float normal();
  void fill_normal(std::span<float> out);

 private:
  std::array<std::uint32_t, 4> counter_;
  std::array<std::uint32_t, 2> key_;
  std::array<std::uint32_t, 4> block_{};
  unsigned used_ = 4;
  bool has_spare_ = false;
  float spare_ = 0;
};

// A uniform permutation of 0..n-1 (Fisher-Yates on the stream of (seed, purpose, step)).
std::vector<std::int64_t> permutation(std::int64_t n, std::uint64_t seed, Purpose purpose, std::uint64_t step);

}  // namespace laptopdiff::runtime
