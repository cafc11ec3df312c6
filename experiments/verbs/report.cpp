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
  std::vector<std::string> curves;
  template <typename V>
  void fields(V& v) {
    v("results", results, "folder of a finished sweep");
    v("curves", curves, "curve.json files of `solve --curve` to draw, comma separated; without DIR: these alone");
    v("output", output, "report.html to write");
  }
};

}  // namespace

void run_report(const Invocation& invocation) {
  const auto [options, common, settings] = parse_command<ReportOptions>(invocation, {"results"});
  if (options.curves.empty()) require_option(options.results, "DIR", invocation);
  require_option(options.output, "--output", invocation);
  // A page beside its sweep's files is where it belongs; it must not be one of them.
  const bool beside = std::filesystem::path(options.output).extension() == ".html";
  check_result(options.output, common, {{"folder", beside ? "" : options.results}, {"curves", options.curves}});
  const std::vector<std::filesystem::path> curves(options.curves.begin(), options.curves.end());
  const std::string page = options.results.empty() ? report::make_curves_page(curves, provenance(invocation))
                                                   : report::make_page(options.results, provenance(invocation), curves);
  if (common.dry_run) return runtime::say(runtime::cat("would write ", page.size() / 1024, " KiB to ", options.output));
  runtime::write_file(options.output, page);
  if (common.json) std::cout << runtime::dump_json({{"report", options.output}, {"bytes", page.size()}});
  else runtime::say(runtime::cat(options.output, ": ", page.size() / 1024, " KiB"));
}

}  // namespace laptopdiff::experiments
