// `sweep`: a study's axes become arms; shared stages run once; killed and rerun it continues.
#include <cstdio>
#include <iostream>

#include "experiments/command.h"
#include "experiments/study.h"
#include "experiments/verbs.h"
#include "runtime/error.h"
#include "runtime/hash.h"
#include "runtime/progress.h"

namespace laptopdiff::experiments {
namespace {

struct SweepOptions {
  std::string study, output;
  template <typename V>
  void fields(V& v) {
    v("study", study, "study.json: pipeline, data, arms, axes");
    v("output", output, "folder for stages and results.json; the same command continues a killed sweep");
  }
};

void print_table(const Json& results) {
  std::printf("%-44s %12s %7s", "arm", "params", "steps");
  std::vector<const char*> metrics;  // that some arm has
  for (const char* metric : {"loss", "clip", "pick", "fid", "accuracy"}) {
    for (const Json& row : results["arms"]) {
      if (!row.contains(metric)) continue;
      metrics.push_back(metric);
      break;
    }
  }
  for (const char* metric : metrics) std::printf(" %10s", metric);
  std::printf("\n");
  for (const auto& [name, row] : results["arms"].items()) {
    std::printf("%-44s %12s %7lld", name.c_str(), runtime::with_commas(row["params"].get<std::int64_t>()).c_str(),
                static_cast<long long>(row["steps"].get<std::int64_t>()));
    for (const char* metric : metrics) {
      if (row.contains(metric)) std::printf(" %10.5g", row[metric].get<double>());
      else std::printf(" %10s", "-");
    }
    std::printf("\n");
  }
}

}  // namespace

void run_sweep(const Invocation& invocation) {
  const auto [options, common, settings] = parse_command<SweepOptions>(invocation, {"study"});
  require_option(options.study, "CONFIG.json", invocation);
  require_option(options.output, "--output", invocation);
  if (common.overwrite) {
    throw runtime::usage_error("sweep: --overwrite is not for sweeps, which keep their finished stages; remove ",
                               options.output, " to start over");
  }
  const Json json = runtime::read_json(options.study);
  const Study study = parse_study(json, options.study);
  const std::vector<Arm> arms = expand_arms(study, options.study);
  if (common.dry_run) {
    for (const Arm& arm : arms) std::cout << arm.name << "\n";
    return;
  }
  const std::filesystem::path folder = options.output;
  const runtime::FolderLock lock(folder, "sweep");
  Json passed = {{"device", common.device}, {"dtype", common.dtype}};
  if (common.threads > 0) passed["threads"] = common.threads;
  if (common.quiet) passed["quiet"] = true;
  runtime::write_json(folder / "study.json", json);
  Json results = run_study(study, arms, folder, passed);
  results["study"] = json;
  results["made_by"] = provenance(invocation);
  runtime::write_json(folder / "results.json", results);
  std::error_code ignored;
  std::filesystem::remove(folder / "results.partial.json", ignored);
  if (common.json) std::cout << runtime::dump_json(results);
  else print_table(results);
}

}  // namespace laptopdiff::experiments
