#include "runtime/random.h"

#include <torch/types.h>

#include "pruning/criteria/rows.h"
#include "pruning/criteria/values.h"

namespace laptopdiff::pruning {
namespace {

class Random : public WeightValues {
 public:
  explicit Random(const Subject& subject) : removables_(subject.removables), seed_(subject.seed) {}

 protected:
  at::Tensor values(const Block&) override {
    at::Tensor values = at::zeros({removables_.rows(), 1}, at::kDouble);
    auto value = values.accessor<double, 2>();
    for (std::size_t unit = 0; unit < removables_.units.size(); ++unit)
      value[static_cast<std::int64_t>(unit)][0] =
          runtime::Stream(seed_, runtime::Purpose::random_score, 0, unit).uniform();
    // A shell is worth its blocks, or removing all of them would look cheap.
    for (std::size_t shell = 0; shell < removables_.shells.size(); ++shell) {
      for (const int unit : removables_.shells[shell].units)
        value[static_cast<std::int64_t>(removables_.units.size() + shell)][0] += value[unit][0];
    }
    return values;
  }

 private:
  const Removables& removables_;
  std::uint64_t seed_;
};

}  // namespace

Criterion random_row() {
  return {"random",
          "uniform in [0, 1) by --seed, a shell the sum of its blocks",
          "the least that a criterion must beat",
          Needs::weights,
          "",
          [](const Subject& subject) -> std::unique_ptr<Measurement> { return std::make_unique<Random>(subject); }};
}

}  // namespace laptopdiff::pruning
