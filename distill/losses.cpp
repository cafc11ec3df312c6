#include "distill/losses.h"

#include <torch/types.h>

#include <map>

#include "distill/balance.h"
#include "runtime/error.h"
#include "runtime/tensors.h"

namespace laptopdiff::distill {
namespace {

at::Tensor mean_square(const at::Tensor& a, const at::Tensor& b) {
  return at::mse_loss(a.to(at::kFloat), b.to(at::kFloat));
}

const TapPoint& point(const TapPair& pair, Side side) { return side == Side::teacher ? pair.teacher : pair.student; }

void check_shapes(const std::vector<TapPair>& pairs, const Features& student, const Features& teacher) {
  for (std::size_t l = 0; l < pairs.size(); ++l) {
    if (student.taps[l].sizes() == teacher.taps[l].sizes()) continue;
    throw runtime::input_error("tap ", pairs[l].name, ": the teacher's is ", runtime::sizes_text(teacher.taps[l]),
                               ", the student's ", runtime::sizes_text(student.taps[l]),
                               "; choose other taps for this spec");
  }
}

}  // namespace

Features run_with_taps(const unet::Executor& network, const unet::Inputs& inputs, const std::vector<TapPair>& pairs,
                       Side side) {
  std::map<int, at::Tensor> at_position;
  for (const TapPair& pair : pairs) {
    at_position[point(pair, side).position];
    if (point(pair, side).minus >= 0) at_position[point(pair, side).minus];
  }
  std::vector<unet::Tap> taps;
  for (const auto& [position, hidden] : at_position) taps.push_back({std::to_string(position), position});
  Features features;
  auto slot = at_position.begin();  // taps are reported in order of position
  features.output =
      network.forward(inputs, taps, [&](const std::string&, const at::Tensor& hidden) { (slot++)->second = hidden; });
  for (const TapPair& pair : pairs) {
    const TapPoint& p = point(pair, side);
    features.taps.push_back(p.minus < 0 ? at_position[p.position] : at_position[p.position] - at_position[p.minus]);
  }
  return features;
}

Losses compute_losses(const LossConfig& config, const Features& student, const Features& teacher,
                      const std::vector<TapPair>& pairs, const at::Tensor& target, const at::Tensor& task_weights) {
  check_shapes(pairs, student, teacher);
  at::Tensor task = mean_square(student.output, target);
  if (task_weights.defined()) {
    const at::Tensor each = (student.output.to(at::kFloat) - target).square().flatten(1).mean(1);  // [B]
    task = (each * task_weights).mean();
  }
  const at::Tensor output = mean_square(student.output, teacher.output);
  std::vector<at::Tensor> raw;
  for (std::size_t l = 0; l < pairs.size(); ++l) raw.push_back(mean_square(student.taps[l], teacher.taps[l]));
  const at::Tensor raw_terms = at::stack(raw);                                            // [L]
  const at::Tensor balanced = raw_terms * balance_weights(config.balance, teacher.taps);  // [L]
  const at::Tensor feature = balanced.sum();
  Losses losses;
  losses.total = config.task * task + config.output * output + config.feature * feature;
  losses.task = (config.task * task).detach();
  losses.output = (config.output * output).detach();
  losses.feature = (config.feature * feature).detach();
  losses.raw = raw_terms.detach();
  losses.balanced = balanced.detach();
  return losses;
}

}  // namespace laptopdiff::distill
