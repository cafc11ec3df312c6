#include "metrics/scores.h"

#include <torch/types.h>

#include <cmath>
#include <limits>

#include "tests/support/thrown.h"

#include <doctest/doctest.h>

namespace laptopdiff::metrics {
namespace {

TEST_CASE("a CLIP score is the plain cosine of a pair, negative ones too") {
  const at::Tensor images = torch::tensor({{1.0, 0.0}, {0.6, 0.8}}), texts = torch::tensor({{0.0, 1.0}, {-0.6, -0.8}});
  const std::vector<double> scores = clip_scores(images, texts);
  CHECK(scores[0] == doctest::Approx(0));
  CHECK(scores[1] == doctest::Approx(-1));
}

TEST_CASE("a PickScore is the cosine times the learnt scale") {
  const at::Tensor images = torch::tensor({{1.0, 0.0}}), texts = torch::tensor({{0.25, 0.9}});
  CHECK(pick_scores(images, texts, std::log(100.0))[0] == doctest::Approx(25));
}

TEST_CASE("preferences are a softmax") {
  const std::vector<double> scores{20, 20 + std::log(3.0)};
  const std::vector<double> preferred = preference_probabilities(scores);
  CHECK(preferred[0] == doctest::Approx(0.25));
  CHECK(preferred[1] == doctest::Approx(0.75));
  const std::vector<double> far{2000, 1000}, tied{5, 5, 5};
  CHECK(preference_probabilities(far)[0] == 1);
  CHECK(preference_probabilities(tied)[2] == doctest::Approx(1.0 / 3));
}

TEST_CASE("scores say what does not fit") {
  SUBCASE("other numbers of pictures and texts") {
    const auto thrown = test::thrown_by([] { clip_scores(at::zeros({3, 4}), at::zeros({2, 4})); });
    CHECK(thrown.code == runtime::ExitCode::bad_input);
    CHECK(thrown.says("picture embeddings [3, 4] and text embeddings [2, 4]"));
  }
  SUBCASE("no candidates") {
    CHECK(test::thrown_by([] { preference_probabilities({}); }).says("there are no candidates"));
  }
  SUBCASE("a score that is no number") {
    const std::vector<double> bad{1, std::numeric_limits<double>::infinity()};
    const auto thrown = test::thrown_by([&] { preference_probabilities(bad); });
    CHECK(thrown.code == runtime::ExitCode::non_finite);
    CHECK(thrown.says("candidate 1 scores inf"));
  }
}

}  // namespace
}  // namespace laptopdiff::metrics
