// Which training steps a sampler visits, in descending order. Rounding follows numpy, half to even.
//
// Letters: N training steps, S sampling steps.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace laptopdiff::diffusion {

enum class Spacing { leading, trailing, linspace };

// k (N div S) for k = S-1 .. 0, plus `offset`.
std::vector<double> leading_grid(std::int64_t train, std::int64_t steps, std::int64_t offset);
// round(N - k N/S) - 1, from `start` (N but for clipped schedules) down to above 0.
std::vector<double> trailing_grid(std::int64_t train, std::int64_t steps, std::int64_t start);
// `count` points from 0 to `last`, both included, ascending as numpy.linspace gives them; unrounded.
std::vector<double> linspace(double first, double last, std::int64_t count);
// round(linspace(0, last, S)) reversed.
std::vector<double> linspace_grid(std::int64_t last, std::int64_t steps);

// Noise levels between `highest` and `lowest`, evenly spaced in sigma^(1/7) (Karras et al. 2022, equation 5) or in
// log sigma.
std::vector<double> karras_sigmas(double highest, double lowest, std::int64_t steps);
std::vector<double> exponential_sigmas(double highest, double lowest, std::int64_t steps);

// values[x] by linear interpolation, clamped at the ends.
double interpolate(std::span<const float> values, double x);
// The fractional training step whose log sigma is that of `sigma`.
double timestep_of_sigma(double sigma, std::span<const float> log_sigmas);

}  // namespace laptopdiff::diffusion
