#include "diffusion/timestep_grid.h"

#include <algorithm>
#include <cmath>

namespace laptopdiff::diffusion {

std::vector<double> leading_grid(std::int64_t train, std::int64_t steps, std::int64_t offset) {
  std::vector<double> grid;
  for (std::int64_t k = steps - 1; k >= 0; --k) grid.push_back(static_cast<double>(k * (train / steps) + offset));
  return grid;
}

std::vector<double> trailing_grid(std::int64_t train, std::int64_t steps, std::int64_t start) {
  const double ratio = static_cast<double>(train) / static_cast<double>(steps);
  const double first = static_cast<double>(start);
  const auto count = static_cast<std::int64_t>(std::ceil(-first / -ratio));
  // numpy.arange takes the difference of its first two values as the step.
  const double difference = (first - ratio) - first;
  std::vector<double> grid;
  for (std::int64_t k = 0; k < count; ++k) {
    grid.push_back(std::nearbyint(first + static_cast<double>(k) * difference) - 1);
  }
  return grid;
}

std::vector<double> linspace(double first, double last, std::int64_t count) {
  std::vector<double> points(static_cast<std::size_t>(count), first);
  if (count < 2) return points;
  const double step = (last - first) / static_cast<double>(count - 1);
  for (std::int64_t i = 0; i < count; ++i) points[static_cast<std::size_t>(i)] = static_cast<double>(i) * step + first;
  points.back() = last;
  return points;
}

std::vector<double> linspace_grid(std::int64_t last, std::int64_t steps) {
  std::vector<double> grid = linspace(0, static_cast<double>(last), steps);
  for (double& t : grid) t = std::nearbyint(t);
  std::reverse(grid.begin(), grid.end());
  return grid;
}

std::vector<double> karras_sigmas(double highest, double lowest, std::int64_t steps) {
  constexpr double kRho = 7;  // the paper's value
  const double from = std::pow(highest, 1 / kRho), to = std::pow(lowest, 1 / kRho);
  std::vector<double> sigmas = linspace(0, 1, steps);
  for (double& s : sigmas) s = std::pow(from + s * (to - from), kRho);
  return sigmas;
}

std::vector<double> exponential_sigmas(double highest, double lowest, std::int64_t steps) {
  std::vector<double> sigmas = linspace(std::log(highest), std::log(lowest), steps);
  for (double& s : sigmas) s = std::exp(s);
  return sigmas;
}

double interpolate(std::span<const float> values, double x) {
  if (x <= 0) return values.front();
  if (x >= static_cast<double>(values.size() - 1)) return values.back();
  const auto below = static_cast<std::size_t>(x);
  const double low = values[below], high = values[below + 1];
  return (high - low) * (x - static_cast<double>(below)) + low;
}

double timestep_of_sigma(double sigma, std::span<const float> log_sigmas) {
  const double wanted = std::log(std::max(sigma, 1e-10));
  // The last entry of the longest run that is not above; log_sigmas ascend.
  std::size_t low = 0;
  for (std::size_t i = 0; i < log_sigmas.size(); ++i) {
    if (wanted >= log_sigmas[i]) low = i;
  }
  if (log_sigmas.size() < 2) return 0;
  low = std::min(low, log_sigmas.size() - 2);
  const double below = log_sigmas[low], above = log_sigmas[low + 1];
  const double weight = std::clamp((below - wanted) / (below - above), 0.0, 1.0);
  return (1 - weight) * static_cast<double>(low) + weight * static_cast<double>(low + 1);
}

}  // namespace laptopdiff::diffusion
