// `distill`: retrains a pruned student against its teacher.
#include <torch/types.h>

#include <cstdio>
#include <iostream>

#include "distill/trainer.h"
#include "experiments/command.h"
#include "experiments/inputs.h"
#include "experiments/verbs.h"
#include "runtime/error.h"
#include "runtime/progress.h"

namespace laptopdiff::experiments {
namespace {

struct DistillOptions : distill::DistillConfig {
  std::string output;
  template <typename V>
  void fields(V& v) {
    v("output", output, "run folder; the same command continues a killed run");
    DistillConfig::fields(v);
  }
};

}  // namespace

void run_distill(const Invocation& invocation) {
  const auto [options, common, settings] = parse_command<DistillOptions>(invocation, {});
  require_option(options.output, "--output", invocation);
  distill::check_config(options);
  if (common.overwrite) check_apart(options.output, settings);  // else nothing of the folder is replaced
  distill::RunOptions run;
  run.device = common.torch_device();
  run.dtype = common.torch_dtype();
  run.existing = common.existing();
  run.made_by = provenance(invocation);
  if (common.dry_run) return runtime::say(runtime::cat("would train ", options.steps, " steps into ", options.output));
  const Json result = distill::run_distill(options, options.output, run);
  if (common.json) std::cout << runtime::dump_json(result);
  else
    std::printf("%s/student: %lld of %lld params, loss %.6g\n", options.output.c_str(),
                static_cast<long long>(result["params"]["student"].get<std::int64_t>()),
                static_cast<long long>(result["params"]["base"].get<std::int64_t>()),
                result["last"].value("loss", 0.0));
}

}  // namespace laptopdiff::experiments
