#include "pruning/stability.h"

#include <torch/types.h>

#include "runtime/error.h"
#include "tests/support/models.h"
#include "tests/support/thrown.h"

#include <doctest/doctest.h>

using namespace laptopdiff;
using pruning::Block;
using pruning::Measured;

namespace {

struct Model {
  unet::Program base = unet::build_base(test::small_config());
  pruning::Removables removables = pruning::find_removables(base, unet::Shell::drop);

  pruning::Scores summary(const Measured& measured) const {
    return pruning::summarise(base, removables, measured, "not finite");
  }
};

// A measurement whose values are known: row r of sample n is r + 1 + spread * noise(n, r). It counts its work.
class MadeUp : public pruning::Measurement {
 public:
  MadeUp(std::int64_t rows, std::int64_t samples, double spread, std::int64_t parts = 1)
      : rows_(rows), samples_(samples), parts_(parts) {
    torch::manual_seed(7);
    values_ = at::arange(1, rows + 1, at::kDouble).unsqueeze(1) + spread * at::rand({rows, samples}, at::kDouble);
  }
  std::int64_t samples() const override { return samples_; }
  std::int64_t block_samples() const override { return 4; }
  std::int64_t parts() const override { return parts_; }
  runtime::TensorMap measure(const Block& block, std::int64_t part) override {
    ++measured;
    const std::int64_t first = rows_ * part / parts_, last = rows_ * (part + 1) / parts_;
    return {{"rows", values_.slice(0, first, last).slice(1, block.first, block.last).clone()}};
  }
  Measured fold(const Block&, const std::vector<runtime::TensorMap>& parts) const override {
    std::vector<at::Tensor> rows;
    for (const runtime::TensorMap& part : parts) rows.push_back(part.at("rows"));
    return {at::cat(rows), {}};
  }
  const at::Tensor& values() const { return values_; }
  int measured = 0;

 private:
  std::int64_t rows_, samples_, parts_;
  at::Tensor values_;
};

pruning::StabilityOptions at_half() {
  pruning::StabilityOptions options;
  options.keep = {0.7, 0.5};
  return options;
}

}  // namespace

TEST_CASE("pieces come together in sample order, however many parts they have") {
  for (const std::int64_t parts : {1, 3}) {
    MadeUp measurement(10, 11, 1.0, parts);
    pruning::WorkFolder in_memory;
    const Measured measured = pruning::measure_samples(measurement, in_memory, 11);
    CHECK(at::equal(measured.values, measurement.values()));
    CHECK(measurement.measured == 3 * parts);
    // What is there is not measured again.
    CHECK(at::equal(pruning::measure_samples(measurement, in_memory, 8).values, measurement.values().slice(1, 0, 8)));
    CHECK(measurement.measured == 3 * parts);
  }
}

TEST_CASE("it is checked at doubled sample counts of whole blocks") {
  using Points = std::vector<std::int64_t>;
  CHECK(pruning::check_points(8, 1, 64) == Points{8, 16, 32, 64});
  CHECK(pruning::check_points(8, 3, 40) == Points{9, 18, 36, 40});
  CHECK(pruning::check_points(8, 32, 20) == Points{20});
}

TEST_CASE("scoring stops at the first check where samples agree, and uses all where they do not") {
  const Model model;
  const auto rows = model.removables.rows();
  const auto run = [&](double spread) {
    MadeUp measurement(rows, 32, spread);
    pruning::WorkFolder in_memory;
    return pruning::measure_until_stable(
        measurement, in_memory, 32, model.base, [&](const Measured& m) { return model.summary(m); }, at_half());
  };
  const pruning::StableRun agreed = run(0);
  CHECK(agreed.stable);
  CHECK(agreed.samples == 8);
  CHECK(agreed.checks.back().unchanged == std::vector<double>{1, 1});
  const pruning::StableRun noisy = run(1e4);
  CHECK(!noisy.stable);
  CHECK(noisy.samples == 32);
  CHECK(noisy.checks.size() == 3);
  // The same seed resamples alike.
  const pruning::StableRun again = run(1e4);
  for (std::size_t i = 0; i < noisy.checks.size(); ++i) CHECK(noisy.checks[i].unchanged == again.checks[i].unchanged);
}

TEST_CASE("means of weighted samples are those of repeated samples") {
  MadeUp measurement(5, 4, 3.0);
  Measured measured{measurement.values(), {}};
  measured.gram = at::einsum("in,jn->nij", {measured.values, measured.values});
  const at::Tensor repeated = at::tensor({0, 0, 2, 3, 3, 3}, at::kLong);
  const Measured longer{measured.values.index_select(1, repeated), measured.gram.index_select(0, repeated)};
  const auto weighted = pruning::means_of(measured, at::tensor({2.0, 0.0, 1.0, 3.0}, at::kDouble), "");
  const auto plain = pruning::means_of(longer, at::ones({6}, at::kDouble), "");
  for (std::size_t i = 0; i < 5; ++i) {
    CHECK(*weighted.rows[i].value == doctest::Approx(*plain.rows[i].value));
    CHECK(weighted.rows[i].standard_error == doctest::Approx(plain.rows[i].standard_error));
    for (std::size_t j = 0; j < 5; ++j) CHECK(*weighted.gram[i][j] == doctest::Approx(*plain.gram[i][j]));
  }
}

TEST_CASE("a sample that is not finite takes the value from its row alone") {
  MadeUp measurement(3, 4, 1.0);
  Measured measured{measurement.values().clone(), at::ones({4, 3, 3}, at::kDouble)};
  measured.values[1][2] = std::numeric_limits<double>::quiet_NaN();
  measured.gram[2][1].fill_(std::numeric_limits<double>::quiet_NaN());
  measured.gram[2].select(1, 1).fill_(std::numeric_limits<double>::quiet_NaN());
  const auto means = pruning::means_of(measured, at::ones({4}, at::kDouble), "it broke");
  CHECK(!means.rows[1].value);
  CHECK(means.rows[1].why_null == "it broke");
  CHECK(means.rows[0].value);
  CHECK(!means.gram[1][0]);
  CHECK(!means.gram[2][1]);
  CHECK(means.gram[2][0]);
}

TEST_CASE("what stability cannot be asked for is refused before the work") {
  const Model model;
  const MadeUp measurement(model.removables.rows(), 8, 0);
  const auto refusal = [&](const char* solver, double keep) {
    pruning::StabilityOptions options;
    options.solver = solver;
    options.keep = {0.7, keep};
    return test::thrown_by([&] { pruning::check_stable(measurement, model.base, model.removables, options); });
  };
  for (const auto& [thrown, says] : {std::pair{refusal("knapsak", 0.5), "did you mean `knapsack`"},
                                     {refusal("gram", 0.5), "no Gram matrix"},
                                     {refusal("knapsack", 1e-6), "at most"}}) {
    CHECK(thrown.code == runtime::ExitCode::usage);
    CHECK(thrown.says(says));
  }
  CHECK_NOTHROW(pruning::check_stable(measurement, model.base, model.removables, at_half()));
}
