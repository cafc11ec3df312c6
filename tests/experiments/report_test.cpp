#include "experiments/report/html.h"
#include "experiments/report/numbers.h"
#include "experiments/report/page.h"
#include "experiments/report/sections.h"
#include "experiments/report/settings.h"
#include "experiments/report/study_results.h"
#include "experiments/report/svg.h"
#include "experiments/report/training_log.h"
#include "runtime/hash.h"
#include "runtime/json.h"
#include "tests/support/temporary_folder.h"
#include "tests/support/thrown.h"

#include <doctest/doctest.h>

using namespace laptopdiff;
using runtime::Json;

namespace {

// One transparent pixel.
const std::string kPng =
    std::string("\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x01\0\0\0\x01\x08\x06\0\0\0\x1f\x15\xc4\x89", 33) + "rest";

Json base_config() {
  return {{"_class_name", "UNet2DConditionModel"},
          {"sample_size", 8},
          {"down_block_types", {"CrossAttnDownBlock2D", "DownBlock2D"}},
          {"up_block_types", {"UpBlock2D", "CrossAttnUpBlock2D"}},
          {"block_out_channels", {32, 32}},
          {"layers_per_block", 2},
          {"attention_head_dim", 4},
          {"cross_attention_dim", 16}};
}

Json spec_json(const std::string& layer, const std::string& how) {
  return {{"format", "laptopdiff.spec/1"},
          {"base", {{"class", "UNet2DConditionModel"}, {"config", base_config()}}},
          {"removed", {{{"layer", layer}, {"how", how}}}}};
}

Json scores_json() {
  pruning::Scores scores;
  scores.criterion = "output_loss";
  scores.base = unet::parse_config(base_config(), "test");
  scores.units = unet::find_units(unet::build_base(scores.base));
  for (std::size_t i = 0; i < scores.units.size(); ++i)
    scores.unit_scores.push_back({0.01 * static_cast<double>(i + 1), 0.001, ""});
  scores.unit_scores[2] = {std::nullopt, 0, "NaN"};
  return pruning::scores_json(scores);
}

Json arm_json(const std::string& group, std::int64_t params, double clip, Json files) {
  return {{"group", group}, {"at", Json::object()}, {"params", params},         {"macs", params * 10},
          {"steps", 0},     {"clip", clip},         {"files", std::move(files)}};
}

// A folder with a teacher and a pruned arm, and nothing that is not asked for.
class StudyFolder {
 public:
  StudyFolder() {
    results_ = {{"format", "laptopdiff.results/1"},
                {"name", "A study"},
                {"shared", Json::object()},
                {"seconds", {{"score", 2.5}}}};
    results_["arms"]["teacher"] = arm_json("teacher", 1000, 0.30, Json::object());
    results_["arms"]["pruned"] = arm_json("pruned", 500, 0.27, {{"spec", "stages/solve/spec.json"}});
    results_["arms"]["pruned"]["decline_percent"] = {{"clip", 10.0}};
  }
  void put(const std::string& name, const Json& json) { runtime::write_json(folder_ / name, json); }
  void put_text(const std::string& name, const std::string& text) {
    std::filesystem::create_directories((folder_ / name).parent_path());
    test::put_bytes(folder_ / name, text);
  }
  Json& results() { return results_; }
  std::filesystem::path path() {
    put("results.json", results_);
    return folder_.path();
  }
  std::string page() { return report::make_page(path(), Json::object()); }

 private:
  test::TemporaryFolder folder_;
  Json results_;
};

std::size_t count(const std::string& text, const std::string& part) {
  std::size_t found = 0;
  for (std::size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + part.size())) ++found;
  return found;
}

bool says(const std::string& text, const std::string& part) { return text.find(part) != std::string::npos; }

report::Section section_of(StudyFolder& folder, report::Section (*make)(const report::Material&)) {
  const report::StudyResults results = report::read_study_results(folder.path());
  report::Material material{results, report::settings_of(results), std::nullopt, {}};
  material.pruning = report::pruning_of(results, material.settings);
  return make(material);
}

}  // namespace

TEST_CASE("text that goes into HTML is escaped") {
  CHECK(report::escape("<a href='x'>\"&\"</a>") == "&lt;a href=&#39;x&#39;&gt;&quot;&amp;&quot;&lt;/a&gt;");
  CHECK(report::escape(std::string_view("a\0\x1b"
                                        "b\n",
                                        5)) ==
        "a\xEF\xBF\xBD\xEF\xBF\xBD"
        "b\n");
}

TEST_CASE("base64 pads as RFC 4648 says") {
  CHECK(report::base64("") == "");
  CHECK(report::base64("f") == "Zg==");
  CHECK(report::base64("fo") == "Zm8=");
  CHECK(report::base64("foobar") == "Zm9vYmFy");
  CHECK(report::base64("\xff\xfe\xfd") == "//79");
}

TEST_CASE("numbers are short and use a real minus") {
  CHECK(report::significant(0.27134, 3) == "0.271");
  CHECK(report::significant(-1.25e-7, 3) == "\u22121.25\u00D710\u207B\u2077");
  CHECK(report::percent(-0.01) == "0.0\u00A0%");
  CHECK(report::short_count(999) == "999");
  CHECK(report::short_count(3'214'567) == "3.21\u00A0M");
  CHECK(report::duration(7505) == "2\u00A0h 05\u00A0min");
}

TEST_CASE("axes have ticks inside their range") {
  for (const auto& axis :
       {report::axis_around("", report::Scaling::log, {2e-7, 3.0}),
        report::axis_around("", report::Scaling::log, {0.4}), report::axis_around("", report::Scaling::linear, {-3, 9}),
        report::axis_around("", report::Scaling::linear, {5})}) {
    const auto ticks = axis.ticks();
    CHECK(ticks.size() >= 2);
    CHECK(ticks.size() <= 9);
    for (const auto& [value, text] : ticks) {
      CHECK(value >= axis.low - 1e-12);
      CHECK(value <= axis.high * (1 + 1e-9));
    }
  }
}

TEST_CASE("one run keeps its interval over pictures, two give a range, three a t-interval") {
  const auto one = report::summarize({2}, report::Interval{1, 3});
  CHECK(one.spread == report::Spread::pictures);
  CHECK(one.interval.high == 3);
  const auto two = report::summarize({2, 4}, report::Interval{0, 9});
  CHECK(two.spread == report::Spread::range);
  CHECK(two.mean == 3);
  CHECK(two.interval.low == 2);
  const auto three = report::summarize({1, 2, 3});
  CHECK(three.spread == report::Spread::seeds);
  // s = 1, t(2) = 4.303, half = 4.303 / sqrt(3).
  CHECK(three.interval.high == doctest::Approx(2 + 4.303 / std::sqrt(3.0)));
  CHECK(report::summarize({2}).spread == report::Spread::none);
  CHECK(report::student_t(60) == doctest::Approx(2.000).epsilon(0.001));
}

TEST_CASE("arms that differ in their seed only are one setting; other axes with several values split them") {
  StudyFolder folder;
  Json& arms = folder.results()["arms"];
  for (const double keep : {0.5, 0.7}) {
    for (const int seed : {0, 1, 2}) {
      Json arm = arm_json("laptop", static_cast<std::int64_t>(keep * 1000), keep + 0.01 * seed,
                          {{"spec", "stages/solve/spec.json"}});
      arm["at"] = {{"keep", keep}, {"seed", seed}, {"criterion", "output_loss"}};
      arms[runtime::cat("laptop keep=", keep, " seed=", seed)] = arm;
    }
  }
  const auto results = report::read_study_results(folder.path());
  const auto settings = report::settings_of(results);
  REQUIRE(settings.size() == 4);  // teacher, laptop at 0.5 and at 0.7, pruned
  CHECK(settings[0].first().is_teacher());
  CHECK(settings[0].color == 0);
  CHECK(settings[1].label == "laptop keep=0.5");
  CHECK(settings[1].line == "laptop");
  CHECK(settings[1].arms.size() == 3);
  CHECK(settings[1].metrics.at("clip").mean == doctest::Approx(0.51));
  CHECK(settings[1].metrics.at("clip").spread == report::Spread::seeds);
  CHECK(settings[2].color == settings[1].color);
  CHECK(report::budget_axes(results) == std::vector<std::string>{"keep"});
  CHECK(says(report::make_page(folder.path(), Json::object()), "Quality over size"));
}

TEST_CASE("a page says what is missing, and is made all the same") {
  StudyFolder folder;
  const std::string page = folder.page();
  CHECK(says(page, "<strong>pruned</strong> keeps 50.0\u00A0% of the parameters"));
  CHECK(says(page, "loses 10.0\u00A0% of the CLIP score"));
  CHECK(says(page, "the study&#39;s scores.json is not there"));
  CHECK(says(page, "the study has no audit"));
  CHECK(says(page, "no arm&#39;s spec.json is there"));
  CHECK(says(page, "no arm was retrained"));
  CHECK(says(page, "no arm&#39;s pictures are there"));
  CHECK(says(page, "arm pruned: spec (stages/solve/spec.json) is not there"));
  CHECK_FALSE(says(page, "<script"));
  CHECK_FALSE(says(page, "http://"));
  CHECK_FALSE(says(page, "https://"));
}

TEST_CASE("a change in percent of a value that may be 0 is left out, one inside the teacher's interval is marked") {
  StudyFolder folder;
  folder.results()["arms"]["teacher"]["files"] = {{"metrics", "metrics.json"}};
  const auto page_with = [&](double low, double high) {
    folder.put("metrics.json", {{"metrics", {{"clip", {{"value", 0.3}, {"interval", {low, high}}}}}}});
    return folder.page();
  };
  CHECK(says(page_with(0.29, 0.31), "loses 10.0\u00A0% of the CLIP score against the teacher."));
  CHECK(says(page_with(0.25, 0.35), "against the teacher (inside the teacher\u2019s own 95\u00A0% interval)."));
  const std::string noise = page_with(-0.1, 0.7);
  CHECK_FALSE(says(noise, "10.0\u00A0%"));
  CHECK(says(noise, "of the parameters and is not retrained."));
}

TEST_CASE("names from the study cannot become HTML") {
  StudyFolder folder;
  folder.results()["name"] = "<script>alert(1)</script>";
  folder.results()["arms"]["<img src=x onerror=y>"] = arm_json("<img src=x onerror=y>", 500, 0.2, {{"spec", "s.json"}});
  folder.results()["study"] = {{"note", "</pre><script>"}};
  folder.results()["made_by"] = {{"command", "laptopdiff sweep '<b>'"}};
  const std::string page = folder.page();
  CHECK_FALSE(says(page, "<script"));
  CHECK_FALSE(says(page, "<img src"));
  CHECK_FALSE(says(page, "<b>"));
  CHECK(says(page, "&lt;script&gt;alert(1)"));
}

TEST_CASE("charts have a mark a unit, and tell bypassed layers from dropped ones") {
  StudyFolder folder;
  folder.put("stages/score/scores.json", scores_json());
  folder.put("stages/solve/spec.json", spec_json("down_blocks.1.resnets.1", "bypass"));
  Json handmade = spec_json("up_blocks.1.resnets.1", "drop");
  handmade["removed"].push_back({{"layer", "down_blocks.0.resnets.1"}, {"how", "drop"}});  // the skip that it popped
  folder.put("stages/solve2/spec.json", handmade);
  folder.results()["shared"]["scores"] = "stages/score/scores.json";
  folder.results()["arms"]["handmade"] = arm_json("handmade", 600, 0.25, {{"spec", "stages/solve2/spec.json"}});
  // Equal removals share a map.
  folder.results()["arms"]["again"] = arm_json("again", 600, 0.25, {{"spec", "stages/solve2/spec.json"}});
  const std::size_t units = scores_json()["units"].size();
  const std::string bars = section_of(folder, report::importance_section).body;
  CHECK(count(bars, "class=\"bar fill") == units);
  CHECK(count(bars, ">not finite<") == 1);
  CHECK(count(bars, "class=\"whisker\"") == 3 * (units - 1));
  CHECK(count(bars, "class=\"dropped\"") == 4);  // two ResNets and the transformers behind them
  CHECK(count(bars, "class=\"cross\"") == 2);    // two strokes
  const std::string maps = section_of(folder, report::map_section).body;
  CHECK(count(maps, "<rect") == 2 * units);
  CHECK(count(maps, "class=\"cell dropped\"") == 4);
  CHECK(count(maps, "class=\"cell bypassed resnet\"") == 1);
  CHECK(says(maps, "again, handmade"));
  CHECK(says(maps, "down_blocks.1.resnets.1\nresnet"));
}

TEST_CASE("an audit shows a mark a predicted mask and lists the others") {
  StudyFolder folder;
  const auto row = [](const char* name, const char* kind, Json predicted) {
    return Json{{"name", name},          {"kind", kind},    {"keep", 0.5},  {"removed", {"a"}},
                {"additive", predicted}, {"gram", nullptr}, {"true", 0.02}, {"stderr", 0.001}};
  };
  folder.put("audit.json", {{"format", "laptopdiff.audit/1"},
                            {"rows",
                             {row("knapsack 0.5", "solver", 0.01), row("random 0.5 #0", "random", 0.03),
                              row("bk-sdm-tiny", "preset", nullptr)}},
                            {"agreement",
                             {{"additive",
                               {{"rows", 2},
                                {"spearman", 0.75},
                                {"r2_log", nullptr},
                                {"within_quarter", 0.5},
                                {"ratio", {{"median", 1.5}}}}}}}});
  folder.results()["shared"]["audit"] = "audit.json";
  const std::string body = section_of(folder, report::audit_section).body;
  CHECK(count(body, "\"point audit-solver\"") == 2);  // one in the legend
  CHECK(count(body, "\"point audit-random\"") == 2);
  CHECK(count(body, "class=\"reference\"") == 1);
  CHECK(says(body, "0.75"));
  CHECK(says(body, "<td class=\"number\">" + report::percent(50) + "</td>"));
  CHECK(says(body, "Without a prediction"));
}

TEST_CASE("a mask whose output is not finite has a row without a true loss, and no mark") {
  StudyFolder folder;
  Json row = {{"name", "overflow"},  {"kind", "spec"}, {"keep", 0.5},     {"removed", {"a"}},
              {"additive", nullptr}, {"gram", 0.02},   {"true", nullptr}, {"stderr", nullptr}};
  folder.results()["shared"]["audit"] = "audit.json";
  folder.put("audit.json", {{"format", "laptopdiff.audit/1"}, {"rows", {row}}});
  CHECK(test::thrown_by([&] { (void)folder.page(); }).says("`true` is missing"));
  row["why_null"] = "the output without these layers is not finite";
  Json preset = row, measured = row;
  preset.update({{"name", "preset overflow"}, {"gram", nullptr}});
  measured.update({{"name", "measured"}, {"true", 0.03}, {"stderr", 0.001}});
  measured.erase("why_null");
  folder.put("audit.json", {{"format", "laptopdiff.audit/1"}, {"rows", {row, preset, measured}}});
  const std::string body = section_of(folder, report::audit_section).body;
  CHECK(count(body, "\"point audit-spec\"") == 2);  // one in the legend
  CHECK(count(body, "<td class=\"number\">not finite</td>") == 2);
  CHECK(says(body, "preset overflow (" + report::percent(50) + " kept) not finite"));
}

TEST_CASE("an audit draws corrected predictions and lists the pairs that interact") {
  StudyFolder folder;
  folder.put("audit.json",
             {{"format", "laptopdiff.audit/1"},
              {"rows",
               {{{"name", "given.json"},
                 {"kind", "spec"},
                 {"keep", 0.5},
                 {"removed", {"a"}},
                 {"additive", 0.01},
                 {"gram", 0.02},
                 {"both_fitted", 0.03},
                 {"true", 0.03},
                 {"stderr", 0.001}}}},
              {"agreement", {{"both_fitted", {{"rows", 1}, {"spearman", 0.625}}}}},
              {"strongest_pairs", {{{"a", "first"}, {"b", "second"}, {"inner", 0.5}, {"cosine", 0.25}}}}});
  folder.results()["shared"]["audit"] = "audit.json";
  const std::string body = section_of(folder, report::audit_section).body;
  CHECK(count(body, "class=\"reference\"") == 3);  // a chart a prediction
  CHECK(count(body, "\"point audit-spec\"") == 4);
  CHECK(says(body, "0.625"));
  CHECK(says(body, "<td>first</td><td>second</td>"));
  folder.put("audit.json",
             {{"format", "laptopdiff.audit/1"}, {"rows", Json::array()}, {"strongest_pairs", {{{"a", "b"}}}}});
  CHECK(test::thrown_by([&] { (void)folder.page(); }).says("strongest_pairs[0]"));
}

TEST_CASE("feature terms are shown raw and balanced, with their shares") {
  StudyFolder folder;
  const char* lines =
      "{\"step\": 1, \"loss\": 3, \"task\": 1, \"output\": 1, \"feature\": 1, \"taps\": {\"down_blocks.0\": {\"raw\": "
      "9, \"balanced\": 1}, \"up_blocks.0\": {\"raw\": 1, \"balanced\": 1}}}\n"
      "{\"step\": 5, \"loss\": 2, \"task\": 1, \"output\": 0.5, \"feature\": 0.5, \"taps\": {\"down_blocks.0\": "
      "{\"raw\": 3, \"balanced\": 1}, \"up_blocks.0\": {\"raw\": 1, \"balanced\": 1}}}\n"
      "{\"step\": 9, \"lo";
  folder.put_text("run/log.jsonl", lines);
  folder.results()["arms"]["laptop"] = arm_json("laptop", 500, 0.29, {{"spec", "s.json"}, {"distill", "run"}});
  const auto log = report::read_training_log(folder.path() / "run/log.jsonl");
  REQUIRE(log.size() == 2);  // half a line is passed over
  CHECK(report::shares(log.back(), report::Term::raw).largest == doctest::Approx(0.75));
  CHECK(report::shares(log.back(), report::Term::raw).ratio() == doctest::Approx(3));
  CHECK(report::shares(log.back(), report::Term::balanced).ratio() == doctest::Approx(1));
  CHECK(report::taps_in_order(log) == std::vector<std::string>{"down_blocks.0", "up_blocks.0"});
  const std::string body = section_of(folder, report::balance_section).body;
  CHECK(count(body, "class=\"stroke series\"") == 4);
  CHECK(says(body, "75.0\u00A0%"));
}

TEST_CASE("pictures stand under their prompts only where the prompts are those that were measured") {
  StudyFolder folder;
  test::TemporaryFolder elsewhere;
  const auto prompts = elsewhere / "prompts.txt";
  test::put_bytes(prompts, "a <red> shoe\na hat\n");
  for (const char* name : {"images/000000.png", "images/000001.png"}) folder.put_text(name, kPng);
  Json metrics = {{"metrics", {{"clip", {{"value", 0.3}, {"interval", {0.29, 0.31}}}}}},
                  {"prompts", {{"file", prompts.string()}, {"sha256", runtime::sha256_file(prompts)}}}};
  Json& teacher = folder.results()["arms"]["teacher"];
  teacher["files"] = {{"images", "images"}, {"metrics", "metrics.json"}};
  SUBCASE("the same file") {
    folder.put("metrics.json", metrics);
    const std::string body = section_of(folder, report::images_section).body;
    CHECK(count(body, "<img") == 2);
    CHECK(count(body, "data:image/png;base64,iVBORw0KGgo") == 2);
    CHECK(says(body, "a &lt;red&gt; shoe"));
    CHECK(report::read_study_results(folder.path()).arms.front().metrics.at("clip").interval->low == 0.29);
  }
  SUBCASE("another file") {
    metrics["prompts"]["sha256"] = runtime::sha256("something else");
    folder.put("metrics.json", metrics);
    const std::string body = section_of(folder, report::images_section).body;
    CHECK(count(body, "<img") == 2);
    CHECK_FALSE(says(body, "shoe"));
    CHECK(says(body, "The prompts are left out"));
  }
  SUBCASE("no picture at all") {
    folder.put("metrics.json", metrics);
    folder.put_text("images/000000.png", "GIF89a and enough bytes to be read");
    const auto thrown = test::thrown_by([&] { folder.page(); });
    CHECK(thrown.code == runtime::ExitCode::bad_input);
    CHECK(thrown.says("000000.png: is not a PNG picture"));
  }
}

TEST_CASE("a sweep's folder that cannot be read is refused with the file's name") {
  StudyFolder folder;
  const auto refused = [&](const std::string& part) {
    const auto thrown = test::thrown_by([&] { folder.page(); });
    CHECK(thrown.code == runtime::ExitCode::bad_input);
    INFO(thrown.message);
    CHECK(thrown.says(part));
  };
  SUBCASE("another format") {
    folder.results()["format"] = "laptopdiff.results/9";
    refused("results.json: `format` is \"laptopdiff.results/9\"");
  }
  SUBCASE("no arms") {
    folder.results()["arms"] = Json::object();
    refused("results.json: `arms` must name at least one arm");
  }
  SUBCASE("an arm without its size") {
    folder.results()["arms"]["pruned"].erase("params");
    refused("results.json: arms.pruned");
  }
  SUBCASE("a stage path that leaves the folder") {
    folder.results()["arms"]["pruned"]["files"]["spec"] = "stages/../../spec.json";
    refused("must be a path below the study's folder");
  }
  SUBCASE("an absolute stage path") {
    folder.results()["shared"]["scores"] = "/etc/passwd";
    refused("results.json: shared.scores: `/etc/passwd` must be a path below");
  }
  SUBCASE("a broken stage file") {
    folder.put_text("stages/solve/spec.json", "{");
    refused("stages/solve/spec.json");
  }
  SUBCASE("broken JSON, or none") {
    test::TemporaryFolder empty;
    const auto message = [&] { return test::thrown_by([&] { report::make_page(empty.path(), Json::object()); }); };
    CHECK(message().says("results.json is not there; expected the folder of a finished"));
    test::put_bytes(empty / "results.partial.json", "{}");
    CHECK(message().says("the sweep is not finished"));
    test::put_bytes(empty / "results.json", "{\"format\": ");
    CHECK(message().code == runtime::ExitCode::bad_input);
    CHECK(message().says("results.json"));
  }
}

namespace {

Json curve_json(const std::string& solver, std::vector<std::pair<double, double>> points) {
  Json list = Json::array();
  for (const auto& [keep, loss] : points) list.push_back({{"keep", keep}, {"loss", loss}, {"removed", {"a", "b"}}});
  return {{"format", "laptopdiff.curve/1"},
          {"resource", "params"},
          {"solver", solver},
          {"objective", "sum of scores"},
          {"total", 1000},
          {"choices", points.size()},
          {"points", list}};
}

}  // namespace

TEST_CASE("curve files are drawn a line each, with a mark a point that has a loss") {
  test::TemporaryFolder folder;
  runtime::write_json(folder / "one.json", curve_json("knapsack", {{1, 0}, {0.8, 0.01}, {0.5, 0.1}}));
  runtime::write_json(folder / "two <b>.json", curve_json("greedy", {{0.8, 0.02}, {0.5, 0.3}}));
  const std::string page =
      report::make_curves_page({folder / "one.json", folder / "two <b>.json"}, {{"command", "laptopdiff report"}});
  CHECK(count(page, "<polyline") == 2);
  CHECK(count(page, "<circle") == 4);
  CHECK(says(page, "50.0\u00A0% of params kept, 2 units removed, predicted loss 0.3"));
  CHECK(says(page, "greedy (sum of scores), two &lt;b&gt;.json"));
  CHECK(says(page, ">0.1<"));  // a tick of the logarithmic axis
  CHECK_FALSE(says(page, "<b>"));
  // In a sweep's page they stand among its curves.
  StudyFolder study;
  const std::string whole = report::make_page(study.path(), Json::object(), {folder / "one.json"});
  CHECK(says(whole, "Predicted loss over size"));
  CHECK_FALSE(says(study.page(), "Predicted loss over size"));
}

TEST_CASE("curve files that cannot be drawn are refused with the file's name") {
  test::TemporaryFolder folder;
  Json json = curve_json("knapsack", {{0.5, 0.1}});
  std::string expected;
  SUBCASE("another format") {
    json["format"] = "laptopdiff.spec/1";
    expected = "expected \"laptopdiff.curve/1\", which `laptopdiff solve --curve` writes";
  }
  SUBCASE("no points") {
    json["points"] = Json::array();
    expected = "`points` must be a list that is not empty";
  }
  SUBCASE("a share beyond all") {
    json["points"][0]["keep"] = 1.5;
    expected = "points[0]: `keep` is 1.5, expected 0 to 1";
  }
  SUBCASE("removals that are none") {
    json["points"][0]["removed"] = 3;
    expected = "points[0]: `removed` must be a list";
  }
  runtime::write_json(folder / "curve.json", json);
  const auto thrown = test::thrown_by([&] { report::make_curves_page({folder / "curve.json"}, Json::object()); });
  CHECK(thrown.code == runtime::ExitCode::bad_input);
  CHECK(thrown.says("curve.json"));
  CHECK(thrown.says(expected));
}

TEST_CASE("losses that differ by orders of magnitude have a logarithmic axis, and long names are whole") {
  StudyFolder folder;
  const std::string name = "one_shot criterion=block_influence keep=params=0.3 solver=knapsack";
  for (const auto& [arm, loss] : {std::pair{"a", 0.0001}, {"b", 0.001}, {"c", 0.01}}) {
    folder.results()["arms"][arm == std::string("a") ? name : arm] = arm_json(arm, 500, 0.2, {{"spec", "s.json"}});
    folder.results()["arms"][arm == std::string("a") ? name : arm]["loss"] = loss;
  }
  folder.results()["arms"][name]["group"] = name;
  const std::string body = section_of(folder, report::quality_section).body;
  CHECK(says(body, "Output loss, logarithmic, \u2190 less is better"));
  CHECK(says(body, "CLIP score, more is better"));
  CHECK(says(body, "class=\"panels wide\""));
  CHECK(count(body, ">" + name + "</text>") == 2);  // in either panel
  CHECK(count(body, ">teacher</text>") == 1);       // has no loss, and no row where it has none
}
