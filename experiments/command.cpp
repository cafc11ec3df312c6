#include "experiments/command.h"

#include <ATen/Parallel.h>
#include <torch/types.h>
#include <torch/version.h>

#include <algorithm>
#include <cmath>
// --set takes lists, so a comma must not end a value.
#define CXXOPTS_VECTOR_DELIMITER '\0'
#include <cxxopts.hpp>
#include <iostream>

#include "experiments/inputs.h"
#include "experiments/version.h"
#include "runtime/error.h"
#include "runtime/gpu.h"
#include "runtime/progress.h"
#include "runtime/tensors.h"

namespace laptopdiff::experiments {
namespace {

using runtime::cat;
using runtime::usage_error;

std::string flag_name(std::string name) {
  std::replace(name.begin(), name.end(), '_', '-');
  return name;
}

std::vector<FlagInfo> common_flags() {
  CommonOptions common;
  FlagCollector collector;
  common.fields(collector);
  return collector.flags;
}

void add_flags(cxxopts::Options& options, const std::string& group, const std::vector<FlagInfo>& flags) {
  for (const FlagInfo& flag : flags) {
    if (flag.nested) continue;
    const std::string name = (flag.name == "output" ? "o," : "") + flag_name(flag.name);
    const std::string fallback = flag.fallback == "\"\"" ? "" : cat(" (default ", flag.fallback, ")");
    if (flag.is_switch) options.add_options(group)(name, flag.help, cxxopts::value<bool>());
    else options.add_options(group)(name, flag.help + fallback, cxxopts::value<std::string>());
  }
}

// A flag's text as the JSON value its field expects: numbers and lists as they are, everything else a string.
Json flag_value(const FlagInfo& flag, const std::string& text) {
  if (flag.is_switch) return text.front() == 't' || text.front() == 'T' || text.front() == '1';  // checked by cxxopts
  const Json fallback = Json::parse(flag.fallback, nullptr, false);
  if (fallback.is_string()) return text;
  if (fallback.is_array()) {
    Json list = Json::array();
    std::size_t begin = 0;
    while (begin <= text.size()) {
      const std::size_t comma = std::min(text.find(',', begin), text.size());
      const std::string part = text.substr(begin, comma - begin);
      const Json number = Json::parse(part, nullptr, false);
      if (part.empty() && !text.empty())
        throw usage_error("--", flag_name(flag.name), " ", text, ": has an empty entry; leave the extra comma out");
      if (!part.empty()) list.push_back(number.is_number() ? number : Json(part));
      begin = comma + 1;
    }
    return list;
  }
  const Json number = Json::parse(text, nullptr, false);
  return number.is_number() ? number : Json(text);
}

// Says which flag is unknown, and which one was meant.
[[noreturn]] void refuse_unknown_flag(const Invocation& invocation, const std::vector<FlagInfo>& known,
                                      const std::string& what) {
  std::vector<std::string> names{"config", "set", "help"};
  for (const FlagInfo& flag : known) {
    if (!flag.nested) names.push_back(flag_name(flag.name));
  }
  std::string hint;
  for (const std::string& argument : invocation.arguments) {
    if (argument.rfind("--", 0) != 0) continue;
    const std::string name = argument.substr(2, argument.find('=') - 2);
    if (name.empty() || std::find(names.begin(), names.end(), name) != names.end()) continue;
    const auto near = runtime::near_names(name, names, 1);
    if (!near.empty()) hint = cat(" (did you mean `--", near.front(), "`?)");
    break;
  }
  throw usage_error(invocation.verb, ": ", what, hint, "; see `laptopdiff ", invocation.verb, " --help`");
}

cxxopts::ParseResult parse_flags(cxxopts::Options& options, const Invocation& invocation,
                                 const std::vector<FlagInfo>& known) {
  std::vector<const char*> argv{"laptopdiff"};
  for (const std::string& argument : invocation.arguments) argv.push_back(argument.c_str());
  try {
    return options.parse(static_cast<int>(argv.size()), argv.data());
  } catch (const cxxopts::exceptions::no_such_option& error) {
    refuse_unknown_flag(invocation, known, error.what());
  } catch (const cxxopts::exceptions::exception& error) {
    throw usage_error(invocation.verb, ": ", error.what(), "; see `laptopdiff ", invocation.verb, " --help`");
  }
}

const FlagInfo* find_flag(const std::vector<FlagInfo>& flags, const std::string& name) {
  for (const FlagInfo& flag : flags) {
    if (flag_name(flag.name) == name) return &flag;
  }
  return nullptr;
}

}  // namespace

at::Device CommonOptions::torch_device() const { return runtime::parse_device(device); }
at::ScalarType CommonOptions::torch_dtype() const { return runtime::parse_dtype(dtype); }

std::int64_t MemoryOption::bytes(at::Device device) const {
  // More variants at once keep a GPU busy; on a CPU they gain nothing from a few on, and leave the caches.
  constexpr std::int64_t kOnCpu = std::int64_t{256} << 20, kOnGpu = std::int64_t{8} << 30;
  if (memory == "auto") return device.is_cuda() ? kOnGpu : kOnCpu;
  static constexpr std::pair<const char*, double> kUnits[] = {{"", 1},         {"B", 1},        {"KiB", 0x1p10},
                                                              {"MiB", 0x1p20}, {"GiB", 0x1p30}, {"TiB", 0x1p40}};
  constexpr double kMost = 0x1p60;
  std::size_t used = 0;
  double value = 0;
  try {
    value = std::stod(memory, &used);
  } catch (const std::exception&) {
    used = 0;
  }
  for (const auto& [unit, scale] : kUnits) {
    // A part of a byte is a unit forgotten.
    const double bytes = value * scale;
    if (used > 0 && memory.substr(used) == unit && bytes >= 1 && bytes <= kMost &&
        (scale > 1 || bytes == std::floor(bytes)))
      return static_cast<std::int64_t>(bytes);
  }
  throw runtime::usage_error(
      "--memory ", memory,
      ": expected a size like 512MiB or 8GiB, or auto (units: B, KiB, MiB, GiB, TiB; none: whole bytes)");
}

void check_geometry(std::int64_t latent, std::int64_t tokens) {
  // Beyond these the MACs of attention no longer fit 64 bits.
  constexpr std::int64_t kMaxLatent = 2048, kMaxTokens = 1 << 20;
  if (latent < 0 || latent > kMaxLatent)
    throw usage_error("--latent ", latent, ": expected 1 to ", kMaxLatent, ", or 0 for the config's");
  if (tokens < 1 || tokens > kMaxTokens) throw usage_error("--tokens ", tokens, ": expected 1 to ", kMaxTokens);
}

Json parse_settings(const Invocation& invocation, const std::vector<FlagInfo>& own,
                    const std::vector<std::string>& positionals, const std::string& details, FileCheck check_file) {
  cxxopts::Options options("laptopdiff " + invocation.verb);
  for (const Verb& verb : verbs()) {
    if (invocation.verb == verb.name) options = cxxopts::Options("laptopdiff " + invocation.verb, verb.summary);
  }
  options.set_width(110);
  std::vector<FlagInfo> all = own;
  add_flags(options, invocation.verb, own);
  const std::vector<FlagInfo> common = common_flags();
  all.insert(all.end(), common.begin(), common.end());
  add_flags(options, "Common", common);
  options.add_options("Common")("config", "JSON file with any of these options", cxxopts::value<std::string>())(
      "set", "a.b=c: sets one key of the config", cxxopts::value<std::vector<std::string>>())("h,help", "this text");
  std::vector<std::string> places;
  for (const std::string& name : positionals) places.push_back(flag_name(name));
  options.parse_positional(places);
  std::string usage;
  for (const std::string& place : places) usage += " " + place;
  options.positional_help(usage);
  options.show_positional_help();
  const auto result = parse_flags(options, invocation, all);
  if (result.count("help") > 0) {
    const bool nested = std::any_of(own.begin(), own.end(), [](const FlagInfo& flag) { return flag.nested; });
    std::cout << options.help({invocation.verb, "Common"})
              << (nested ? "\nConfig keys (--config FILE.json, --set a.b=c):\n" + details : "");
    throw HelpShown{};
  }
  if (!result.unmatched().empty()) {
    throw usage_error(invocation.verb, ": unexpected argument `", result.unmatched().front(), "`; see `laptopdiff ",
                      invocation.verb, " --help`");
  }

  Json settings = Json::object();
  if (result.count("config") > 0) {
    const std::string file = result["config"].as<std::string>();
    settings = runtime::read_json(file);
    check_file(settings, file);  // so that a message can name the file
  }
  if (result.count("set") > 0) {
    for (const std::string& setting : result["set"].as<std::vector<std::string>>())
      runtime::apply_setting(settings, setting);
  }
  for (const auto& given : result.arguments()) {
    const FlagInfo* flag = find_flag(all, given.key());
    if (flag != nullptr) settings[flag->name] = flag_value(*flag, given.value());
  }
  return settings;
}

CommonOptions take_common(Json& settings) {
  Json common = Json::object();
  for (const FlagInfo& flag : common_flags()) {
    if (!settings.contains(flag.name)) continue;
    common[flag.name] = settings[flag.name];
    settings.erase(flag.name);
  }
  CommonOptions options;
  try {
    options = runtime::read_config<CommonOptions>(common, "options");
  } catch (const runtime::Error& error) {
    throw usage_error(error.what());
  }
  if (options.threads < 0 || options.threads > 1024)
    throw usage_error("--threads ", options.threads, ": expected 0 to 1024");
  (void)options.torch_dtype();  // a wrong name is an error even where the verb has no use for it
  if (options.torch_device().is_cuda()) runtime::make_gpu_repeatable();
  if (options.threads > 0) at::set_num_threads(options.threads);
  if (options.quiet) runtime::set_verbosity(runtime::Verbosity::quiet);
  return options;
}

void require_option(const std::string& value, const std::string& flag, const Invocation& invocation) {
  if (value.empty())
    throw usage_error(invocation.verb, ": ", flag, " is missing; see `laptopdiff ", invocation.verb, " --help`");
}

void check_result(const std::string& output, const CommonOptions& common, const Json& settings) {
  runtime::check_output(output, common.existing());
  check_apart(output, settings);
}

Json provenance(const Invocation& invocation) {
  return {{"command", invocation.command_line}, {"version", kVersion}, {"commit", kCommit}, {"torch", TORCH_VERSION}};
}

}  // namespace laptopdiff::experiments
