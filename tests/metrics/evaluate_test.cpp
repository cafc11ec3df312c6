#include "metrics/evaluate.h"

#include <torch/types.h>

#include "diffusion/image.h"
#include "metrics/classifier.h"
#include "metrics/clip_model.h"
#include "metrics/scores.h"
#include "runtime/hash.h"
#include "runtime/progress.h"
#include "runtime/tensors.h"
#include "tests/metrics/tiny_models.h"
#include "tests/support/thrown.h"

#include <doctest/doctest.h>

namespace laptopdiff::metrics {
namespace {

using runtime::ExitCode;
using runtime::Json;

constexpr int kPictures = 6;

// Six generated pictures with prompts and labels, real pictures, and the three models.
class Workplace {
 public:
  Workplace() {
    runtime::set_verbosity(runtime::Verbosity::quiet);
    test::put_clip(models() / "clip", 1);
    test::put_clip(models() / "pick", 2);
    test::put_classifier(models() / "classifier");
    std::filesystem::create_directories(path("images"));
    for (int i = 0; i < kPictures; ++i) put_picture(i, pictures()[i]);
    std::filesystem::create_directories(path("real"));
    runtime::write_tensors(path("real") / "images.safetensors", {{"images", test::noise_pictures(9, 8, 1, 4)}});
    test::put_bytes(path("prompts.txt"), "a\nb\nab\nba\na b\n\n");
    test::put_bytes(path("labels.txt"), "bag\nshirt\nshoe\n0\n1\n2\n");
  }
  ~Workplace() { runtime::set_verbosity(runtime::Verbosity::normal); }

  std::filesystem::path path(const std::string& name) const { return folder_ / name; }
  std::filesystem::path models() const { return path("models"); }
  static at::Tensor pictures() { return test::noise_pictures(kPictures, 8, 3); }
  void put_picture(int index, const at::Tensor& picture) const {
    diffusion::write_png(path("images") / ("00000" + std::to_string(index) + ".png"), picture);
  }
  EvaluateOptions options(std::vector<std::string> metrics) const {
    EvaluateOptions options;
    options.images = path("images");
    options.reference = path("real");
    options.prompts = path("prompts.txt");
    options.labels = path("labels.txt");
    options.models = models();
    options.metrics = std::move(metrics);
    options.resamples = 50;
    options.kid_subsets = 4;
    options.batch = 4;
    return options;
  }

 private:
  test::TemporaryFolder folder_;
};

test::Thrown failure(const EvaluateOptions& options) {
  return test::thrown_by([&] { evaluate(options); });
}

TEST_CASE("evaluation equals the metrics computed one by one") {
  const Workplace place;
  const Json result = evaluate(place.options(evaluate_metrics()));
  const std::vector<std::string> prompts{"a", "b", "ab", "ba", "a b", ""};
  const auto mean = [](const std::vector<double>& values) {
    return std::accumulate(values.begin(), values.end(), 0.0) / static_cast<double>(values.size());
  };
  const ClipModel clip = ClipModel::load(place.models() / "clip", at::kCPU);
  const ClipModel pick = ClipModel::load(place.models() / "pick", at::kCPU);
  const at::Tensor pictures = Workplace::pictures();
  const Json& metrics = result.at("metrics");
  CHECK(metrics.at("clip").at("value").get<double>() ==
        doctest::Approx(mean(clip_scores(clip.image_embeds(pictures), clip.text_embeds(prompts)))));
  CHECK(metrics.at("pick").at("value").get<double>() ==
        doctest::Approx(mean(pick_scores(pick.image_embeds(pictures), pick.text_embeds(prompts), pick.logit_scale()))));
  const at::Tensor classes =
      Classifier::load(place.models() / "classifier", at::kCPU).run(pictures.unbind(0)).logits.argmax(-1);
  const at::Tensor right = classes.eq(torch::tensor({0, 1, 2, 0, 1, 2})).to(at::kDouble);
  CHECK(metrics.at("accuracy").at("value").get<double>() == doctest::Approx(right.mean().item<double>()));
  CHECK(metrics.at("accuracy").at("classes").at("shoe").at("count") == 2);
  CHECK(metrics.at("fid").at("reference_count") == 9);
  CHECK(metrics.at("kid").at("subset_size") == kPictures);
}

TEST_CASE("evaluation tells where its numbers come from") {
  const Workplace place;
  const Json result = evaluate(place.options({"clip", "fid"}));
  CHECK(result.at("format") == "laptopdiff.metrics/1");
  CHECK(result.at("images").at("count") == kPictures);
  CHECK(result.at("images").at("size") == "8x8");
  CHECK(result.at("reference").at("digest") == runtime::sha256_file(place.path("real") / "images.safetensors"));
  CHECK(result.at("prompts").at("sha256") == runtime::sha256_file(place.path("prompts.txt")));
  const Json& clip = result.at("models").at("clip");
  CHECK(clip.at("weights_sha256").at("model.safetensors") ==
        runtime::sha256_file(place.models() / "clip" / "model.safetensors"));
  CHECK(clip.at("preprocess").at("resize") == "to 4x4");
  CHECK_FALSE(result.at("models").contains("pick"));
  CHECK_FALSE(result.contains("labels"));
  CHECK(evaluate(place.options({"clip", "fid"})) == result);
}

TEST_CASE("pictures measured against themselves have no distance") {
  const Workplace place;
  EvaluateOptions options = place.options({"fid"});
  options.reference = options.images;
  CHECK(evaluate(options).at("metrics").at("fid").at("value").get<double>() < 1e-9);
}

TEST_CASE("only the first reference pictures count where a limit is given") {
  const Workplace place;
  EvaluateOptions options = place.options({"fid"});
  options.reference_limit = 5;
  CHECK(evaluate(options).at("metrics").at("fid").at("reference_count") == 5);
  options.reference_limit = 2;
  CHECK(evaluate(options).at("metrics").at("fid").at("warnings").size() == 1);
}

TEST_CASE("only the first prompts and labels count where their lines are limited") {
  const Workplace place;
  test::put_bytes(place.path("prompts.txt"), "a\nb\nab\nba\na b\n\nbb\nbbb\n");
  EvaluateOptions options = place.options({"clip", "accuracy"});
  CHECK(failure(options).says("prompts.txt has 8 prompts"));
  options.lines_limit = kPictures;
  CHECK(evaluate(options).at("prompts").at("count") == kPictures);
}

TEST_CASE("pictures of several sizes are told for clip, and refused for fid") {
  const Workplace place;
  place.put_picture(2, test::noise_pictures(1, 11, 3)[0]);
  const Json images = evaluate(place.options({"clip"})).at("images");
  CHECK(images.at("size") == "mixed");
  CHECK(images.at("smallest") == "8x8");
  CHECK(images.at("largest") == "11x11");
  CHECK_NOTHROW(evaluate(place.options({"accuracy"})));
  const auto thrown = failure(place.options({"fid"}));
  CHECK(thrown.code == ExitCode::bad_input);
  CHECK(thrown.says("fid and kid need pictures of one size, these are 8x8 to 11x11"));
}

TEST_CASE("what was asked for must be there") {
  const Workplace place;
  SUBCASE("no metrics") {
    const auto thrown = failure(place.options({}));
    CHECK(thrown.code == ExitCode::usage);
    CHECK(thrown.says("no metrics asked for; expected some of clip, pick, fid, kid, accuracy"));
  }
  SUBCASE("an unknown metric") {
    const auto thrown = failure(place.options({"clip", "clop"}));
    CHECK(thrown.code == ExitCode::usage);
    CHECK(thrown.says("unknown metric `clop`"));
    CHECK(thrown.says("`clip`"));
  }
  SUBCASE("no prompts") {
    EvaluateOptions options = place.options({"pick"});
    options.prompts.reset();
    CHECK(failure(options).code == ExitCode::usage);
    CHECK(failure(options).says("metric pick needs --prompts FILE"));
  }
  SUBCASE("no reference") {
    EvaluateOptions options = place.options({"kid"});
    options.reference.reset();
    CHECK(failure(options).says("metric kid needs --reference DIR"));
  }
  SUBCASE("no labels") {
    EvaluateOptions options = place.options({"accuracy"});
    options.labels.reset();
    CHECK(failure(options).says("metric accuracy needs --labels FILE"));
  }
  SUBCASE("no model") {
    std::filesystem::remove_all(place.models() / "pick");
    const auto thrown = failure(place.options({"clip", "pick"}));
    CHECK(thrown.code == ExitCode::bad_input);
    CHECK(thrown.says("metric pick needs the model folder " + (place.models() / "pick").string() +
                      ", which is not there"));
    CHECK_NOTHROW(evaluate(place.options({"clip"})));
  }
  SUBCASE("a batch of nothing") {
    EvaluateOptions options = place.options({"clip"});
    options.batch = 0;
    CHECK(failure(options).says("batch must be at least 1, is 0"));
  }
  SUBCASE("a negative limit of lines") {
    EvaluateOptions options = place.options({"clip"});
    options.lines_limit = -1;
    CHECK(failure(options).says("limit of lines must not be negative, is -1"));
  }
  SUBCASE("a negative limit") {
    EvaluateOptions options = place.options({"fid"});
    options.reference_limit = -1;
    CHECK(failure(options).says("reference limit must not be negative, is -1"));
  }
}

TEST_CASE("inputs that do not belong together are refused") {
  const Workplace place;
  SUBCASE("fewer prompts than pictures") {
    test::put_bytes(place.path("prompts.txt"), "a\nb\n");
    const auto thrown = failure(place.options({"clip"}));
    CHECK(thrown.code == ExitCode::bad_input);
    CHECK(thrown.says("prompts.txt has 2 prompts"));
    CHECK(thrown.says("has 6 pictures; line i must belong to picture i"));
  }
  SUBCASE("fewer labels than pictures") {
    test::put_bytes(place.path("labels.txt"), "bag\n");
    CHECK(failure(place.options({"accuracy"})).says("labels.txt has 1 labels"));
  }
  SUBCASE("a label of no class") {
    test::put_bytes(place.path("labels.txt"), "bag\nshirt\nhat\n0\n1\n2\n");
    CHECK(failure(place.options({"accuracy"})).says("labels.txt line 3: label `hat`"));
  }
  SUBCASE("no pictures") {
    std::filesystem::remove_all(place.path("images"));
    std::filesystem::create_directories(place.path("images"));
    CHECK(failure(place.options({"clip"})).says("there are no pictures"));
  }
  SUBCASE("a picture that cannot be read") {
    test::put_bytes(place.path("images") / "000003.png", "");
    CHECK(failure(place.options({"clip"})).says("000003.png"));
  }
  SUBCASE("one reference picture") {
    EvaluateOptions options = place.options({"fid"});
    options.reference_limit = 1;
    CHECK(failure(options).says("reference features: a covariance needs at least 2 samples, there are 1"));
  }
}

}  // namespace
}  // namespace laptopdiff::metrics
