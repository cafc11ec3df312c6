// The program: finds the verb, runs it, and turns what it throws into one message and the promised exit code.
#include <c10/core/CPUAllocator.h>
#include <c10/util/Exception.h>

#include <cstdio>
#include <iostream>
#include <new>
#include <system_error>

#include "experiments/command.h"
#include "experiments/version.h"
#include "runtime/error.h"
#include "runtime/processes.h"
#include "runtime/stop.h"

namespace {

using namespace laptopdiff;
using runtime::ExitCode;

constexpr int kInternalError = 70;  // a bug of ours; not part of the contract

void print_help() {
  std::cout << "laptopdiff " << experiments::kVersion << ": makes diffusion U-Nets smaller by removing layers\n\n"
            << "usage: laptopdiff VERB ... [--help]\n\n";
  for (const experiments::Verb& verb : experiments::verbs()) std::printf("  %-12s %s\n", verb.name, verb.summary);
  std::fflush(stdout);
  std::cout << "\nexit codes: 0 ok; 2 usage, existing output, impossible budget; 3 bad input; 4 non-finite numbers;\n"
               "            5 out of memory or disk, unwritable; 75 stopped, state saved; 130 interrupted\n";
}

int fail(ExitCode code, const std::string& message) {
  std::fprintf(stderr, "laptopdiff: %s\n", message.c_str());
  return static_cast<int>(code);
}

experiments::Invocation read_invocation(int argc, char** argv) {
  experiments::Invocation invocation;
  invocation.verb = argv[1];
  for (int i = 2; i < argc; ++i) invocation.arguments.emplace_back(argv[i]);
  invocation.command_line = "laptopdiff";
  for (int i = 1; i < argc; ++i) invocation.command_line += std::string(" ") + argv[i];
  return invocation;
}

// Several processes with one verb would do the same work and write over each other.
void refuse_company(const char* verb) {
  if (runtime::launched_processes() == 1) return;
  if (runtime::processes().first()) {
    throw runtime::usage_error("`", verb, "` is one process, ", runtime::processes().size,
                               " were started; of the verbs only `score` shares its work");
  }
  runtime::barrier();  // the first one says it, and ends all
}

int run(int argc, char** argv) {
  const experiments::Invocation invocation = read_invocation(argc, argv);
  std::vector<std::string> names;
  for (const experiments::Verb& verb : experiments::verbs()) {
    if (invocation.verb == verb.name) {
      if (!verb.parallel) refuse_company(verb.name);
      verb.run(invocation);
      return 0;
    }
    names.emplace_back(verb.name);
  }
  throw runtime::usage_error("unknown verb `", invocation.verb, "`", runtime::did_you_mean(invocation.verb, names));
}

// What did not reach stdout is a failure, whatever was computed.
int finish(int code) {
  std::cout.flush();
  return std::cout ? code : fail(ExitCode::resources, "cannot write to stdout");
}

int run_and_report(int argc, char** argv) {
  if (argc < 2 || std::string(argv[1]) == "--help" || std::string(argv[1]) == "-h") {
    print_help();
    return finish(argc < 2 ? static_cast<int>(ExitCode::usage) : 0);
  }
  if (std::string(argv[1]) == "--version") {
    std::cout << experiments::kVersion << " (" << experiments::kCommit << ")\n";
    return finish(0);
  }
  runtime::install_stop_handlers();
  try {
    return finish(run(argc, argv));
  } catch (const experiments::HelpShown&) {
    return finish(0);
  } catch (const runtime::Error& error) {
    return fail(error.code(), error.what());
  } catch (const std::bad_alloc&) {
    return fail(ExitCode::resources, "out of memory; a smaller batch, --memory or --dtype bf16 needs less");
  } catch (const c10::OutOfMemoryError& error) {
    return fail(ExitCode::resources, std::string("out of GPU memory: ") + error.what_without_backtrace());
  } catch (const std::filesystem::filesystem_error& error) {
    // A path that leads nowhere was given to us; all else is the disk's state.
    const bool senseless = error.code() == std::errc::too_many_symbolic_link_levels ||
                           error.code() == std::errc::filename_too_long || error.code() == std::errc::not_a_directory;
    return fail(senseless ? ExitCode::bad_input : ExitCode::resources, error.what());
  } catch (const c10::Error& error) {
    const std::string what = error.what_without_backtrace();
    if (what.find("DefaultCPUAllocator") != std::string::npos)
      return fail(ExitCode::resources, "out of memory: " + what);
    std::fprintf(stderr, "laptopdiff: internal error: %s\n", error.what());
    return kInternalError;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "laptopdiff: internal error: %s\n", error.what());
    return kInternalError;
  }
}

}  // namespace

int main(int argc, char** argv) {
  const int code = run_and_report(argc, argv);
  runtime::finish_processes(code);
  return code;
}
