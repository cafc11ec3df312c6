// `report`: one self-contained page about a sweep: tables, maps, curves and pictures.
#include <iostream>

#include "experiments/command.h"
#include "experiments/report/page.h"
#include "experiments/verbs.h"
#include "runtime/error.h"
#include "runtime/file.h"
#include "runtime/progress.h"

namespace laptopdiff::experiments {
namespace {

struct ReportOptions {
  std::string results, output;
  template <typename V>
  void fields(V& v) {
    v("results", results, "folder of a finished sweep");
    v("output", output, "report.html to write");
  }
};

}  // namespace

void run_report(const Invocation& invocation) {
  const auto [options, common, settings] = parse_command<ReportOptions>(invocation, {"results"});
  require_option(options.results, "DIR", invocation);
  require_option(options.output, "--output", invocation);
  // A page beside its sweep's files is where it belongs; it must not be one of them.
  const bool beside = std::filesystem::path(options.output).extension() == ".html";
  check_result(options.output, common, beside ? Json::object() : Json{{"folder", options.results}});
  const std::string page = report::make_page(options.results, provenance(invocation));
  if (common.dry_run) return runtime::say(runtime::cat("would write ", page.size() / 1024, " KiB to ", options.output));
  runtime::write_file(options.output, page);
  if (common.json) std::cout << runtime::dump_json({{"report", options.output}, {"bytes", page.size()}});
  else runtime::say(runtime::cat(options.output, ": ", page.size() / 1024, " KiB"));
}

}  // namespace laptopdiff::experiments
