#include "pruning/criteria/values.h"

#include <set>

namespace laptopdiff::pruning {
namespace {

constexpr std::int64_t kFewSamples = 8;

std::set<std::string> parameter_names(const unet::Program& program) {
  std::set<std::string> names;
  for (const unet::Step& step : program.steps) {
    for (const unet::Parameter& p : unet::step_parameters(program.config, program.stages, step)) names.insert(p.name);
  }
  return names;
}

}  // namespace

std::int64_t samples_at_once(const Subject& subject) { return subject.batch > 0 ? subject.batch : kFewSamples; }

std::vector<std::vector<std::string>> parameters_of_rows(const Subject& subject) {
  const std::set<std::string> all = parameter_names(subject.base);
  std::vector<std::vector<std::string>> rows;
  for (const unet::Program& without : subject.removables.without) {
    const std::set<std::string> left = parameter_names(without);
    std::vector<std::string>& gone = rows.emplace_back();
    for (const std::string& name : all) {
      if (!left.contains(name)) gone.push_back(name);
    }
  }
  return rows;
}

}  // namespace laptopdiff::pruning
