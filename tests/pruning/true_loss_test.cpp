#include "pruning/true_loss.h"

#include <torch/types.h>

#include "pruning/audit.h"
#include "pruning/budgets.h"
#include "pruning/output_loss.h"
#include "pruning/solve.h"
#include "runtime/error.h"
#include "tests/support/models.h"

#include <doctest/doctest.h>

using namespace laptopdiff;
using pruning::Mask;

namespace {

struct SmallModel {
  unet::Program base = unet::build_base(test::small_config());
  unet::Executor executor{base, test::random_weights(base)};
  unet::Inputs inputs = test::random_inputs(base.config, 5);
  at::Tensor whole = [this] {
    const c10::InferenceMode inference;
    return executor.forward(inputs);
  }();
  pruning::MeterOptions options{unet::Shell::drop, 2, 2, {}};  // the last batch is short
  pruning::LossMeter meter{base, executor, inputs, options};
  pruning::Scores scores = pruning::score_output_loss(base, executor, inputs, {});

  pruning::Problem problem(double keep) const {
    return pruning::make_problem(scores, base,
                                 {{pruning::Resource::params, keep * static_cast<double>(base.params())}});
  }
  // From conv_in to conv_out, all samples, one mask at a time.
  double naive_loss(const Mask& mask) const {
    unet::Spec spec;
    spec.base = base.config;
    spec.removed = pruning::removals_of(scores, mask);
    const c10::InferenceMode inference;
    const unet::Program variant = unet::prune(base, spec);
    unet::State state = executor.start(inputs);
    for (const unet::Step& step : variant.steps) executor.run(step, state);
    return (state.hidden - whole).to(at::kDouble).square().mean().item<double>();
  }
  pruning::TrueLosses losses() {
    return [this](const std::vector<Mask>& masks, pruning::Samples samples) {
      std::vector<std::vector<unet::Removal>> sets;
      for (const Mask& mask : masks) sets.push_back(pruning::removals_of(scores, mask));
      std::vector<double> values;
      for (const auto& one : meter.measure(sets, "test", samples)) values.push_back(one.loss);
      return values;
    };
  }
};

}  // namespace

TEST_CASE("the meter measures what full forwards give, call by call, and counts its work") {
  SmallModel m;
  std::vector<Mask> masks;
  for (std::uint64_t seed = 0; seed < 6; ++seed) masks.push_back(pruning::random_mask(m.problem(0.6), seed).removed);
  const auto measure = m.losses();
  std::vector<double> losses = measure({masks.begin(), masks.begin() + 2}, pruning::Samples::all);
  const double first = m.meter.forwards();
  CHECK(first > 1);
  for (const double loss : measure({masks.begin() + 2, masks.end()}, pruning::Samples::all)) losses.push_back(loss);
  for (std::size_t i = 0; i < masks.size(); ++i)
    CHECK(losses[i] == doctest::Approx(m.naive_loss(masks[i])).epsilon(1e-3));
  CHECK(m.meter.forwards() > first);
  CHECK(m.meter.naive_forwards() >= m.meter.forwards());
  CHECK(m.meter.measure(std::vector<unet::Program>{}, "nothing").empty());
  CHECK(m.meter.few_share() == doctest::Approx(2.0 / 5));
  const double before = m.meter.naive_forwards();
  // Few samples are chosen by the first mask: its loss on them is the one on all, by construction.
  CHECK(measure({masks[0]}, pruning::Samples::few).front() == doctest::Approx(losses[0]).epsilon(1e-3));
  CHECK(m.meter.naive_forwards() < before + 1);  // the base's and the mask's forwards, on two samples of five
  CHECK(measure({masks[1]}, pruning::Samples::few).front() == doctest::Approx(losses[1]).epsilon(0.7));
}

TEST_CASE("a few samples stand for all before anything was measured on all") {
  SmallModel m;
  const Mask mask = pruning::random_mask(m.problem(0.6), 1).removed;
  CHECK(m.losses()({mask}, pruning::Samples::few).front() == doctest::Approx(m.naive_loss(mask)).epsilon(1e-3));
}

TEST_CASE("exact greedy through the engine is a loop of full forwards") {
  SmallModel m;
  const pruning::Problem problem = m.problem(0.93);  // a few rounds
  const pruning::Solution solution = pruning::exact_greedy(problem, m.losses());
  const pruning::Solution naive = pruning::exact_greedy(problem, [&](const std::vector<Mask>& masks, pruning::Samples) {
    std::vector<double> values;
    for (const Mask& mask : masks) values.push_back(m.naive_loss(mask));
    return values;
  });
  CHECK(solution.removed == naive.removed);
  CHECK(solution.loss == doctest::Approx(naive.loss).epsilon(1e-3));
}

TEST_CASE("a verified mask is at least as good as the plain solvers', by full forwards") {
  SmallModel m;
  for (const double keep : {0.75, 0.5}) {
    const pruning::Problem problem = m.problem(keep);
    pruning::SearchTools tools;
    tools.measure = m.losses();
    tools.verify = {8, m.meter.few_share()};
    const pruning::Solution verified = pruning::solve_by_name("verify", problem, tools);
    for (const char* solver : {"gram", "knapsack"}) {
      const double plain = m.naive_loss(pruning::solve_by_name(solver, problem).removed);
      CHECK(m.naive_loss(verified.removed) <= plain * (1 + 1e-3));
    }
  }
}

TEST_CASE("an audit holds the masks of every scores file and solver, and a correction of its predictions") {
  SmallModel m;
  pruning::Scores flat = m.scores;
  flat.criterion = "flat";
  flat.gram.clear();
  for (pruning::Estimate& estimate : flat.unit_scores) estimate.value = 1;
  pruning::AuditOptions options;
  options.keep = {0.7, 0.5};
  options.random_masks = 3;
  options.fit_masks = 3;
  options.presets = {"bk-sdm-base"};
  unet::Spec spec;
  spec.base = m.base.config;
  spec.removed = {{"mid_block.resnets.1", unet::How::bypass}};
  options.specs = {{"by-hand.json", spec}};
  const pruning::Audit audit = pruning::run_audit(m.base, m.meter, {m.scores, flat}, options);
  const auto count = [&](const std::string& kind, const std::string& criterion) {
    return std::count_if(audit.rows.begin(), audit.rows.end(),
                         [&](const pruning::AuditRow& row) { return row.kind == kind && row.criterion == criterion; });
  };
  CHECK(count("solver", "output_loss") == 6);
  CHECK(count("solver", "flat") == 4);
  CHECK(count("random", "") == 6);
  CHECK(audit.fit_rows.size() == 6);
  const pruning::AuditRow& preset = audit.rows[audit.rows.size() - 2];
  CHECK(preset.name == "bk-sdm-base");
  CHECK_FALSE(preset.gram.has_value());
  const pruning::AuditRow& by_hand = audit.rows.back();
  CHECK(by_hand.kind == "spec");
  CHECK(*by_hand.additive == doctest::Approx(by_hand.true_loss).epsilon(1e-3));  // one unit: its own score
  CHECK(by_hand.both_fitted.has_value());
  CHECK(audit.corrections.at("gram_fitted").masks == 6);
  CHECK(audit.agreement.at("gram_fitted_random").rows == 6);
  CHECK(audit.criteria.size() == 2);
  const runtime::Json json = pruning::audit_json(audit);
  CHECK(json["fit"]["rows"].size() == 6);
  CHECK(json["agreement"].contains("additive_random"));
  flat.shell = unet::Shell::keep;
  CHECK_THROWS_AS(pruning::run_audit(m.base, m.meter, {m.scores, flat}, options), runtime::Error);
}
