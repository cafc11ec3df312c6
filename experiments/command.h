// One verb's flags, config file and --set, all from the one list of fields of its options struct.
//
//   struct InspectOptions {
//     std::string model;
//     template <typename V> void fields(V& v) { v("model", model, "U-Net folder or config.json"); }
//   };
//   const auto options = parse_command<InspectOptions>(invocation, {"model"});
//
// A field `max_rows` is the flag --max-rows, the key "max_rows" of --config FILE.json, and --set max_rows=4. A flag
// wins over --set, --set over the file. Fields with fields of their own are reachable through the file and --set only.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/Device.h>

#include <string>
#include <vector>

#include "runtime/config.h"
#include "runtime/file.h"

namespace laptopdiff::experiments {

using runtime::Json;

// The flags of every verb.
struct CommonOptions {
  std::string device = "auto";
  std::string dtype = "f32";
  int threads = 0;
  bool json = false;
  bool quiet = false;
  bool dry_run = false;
  bool overwrite = false;
  template <typename V>
  void fields(V& v) {
    v("device", device, "auto, cpu or cuda[:N]");
    v("dtype", dtype, "compute type: f32, bf16 or f16; tensors are written as f32");
    v("threads", threads, "CPU threads; 0: all cores");
    v("json", json, "results as JSON on stdout");
    v("quiet", quiet, "no progress on stderr");
    v("dry_run", dry_run, "check the inputs, say what would be done, and stop");
    v("overwrite", overwrite, "replace an existing output");
  }
  at::Device torch_device() const;
  at::ScalarType torch_dtype() const;
  runtime::Existing existing() const { return overwrite ? runtime::Existing::overwrite : runtime::Existing::refuse; }
};

// Of verbs that run many variants of a network: how much they may take for those that run together.
struct MemoryOption {
  std::string memory = "auto";
  template <typename V>
  void fields(V& v) {
    v("memory", memory,
      "memory for variants that run together, beside the weights: 512MiB, 8GiB, ...; auto: 256MiB, on a GPU 8GiB");
  }
  std::int64_t bytes(at::Device device) const;  // throws Error(usage)
};

// The size that a model is counted or timed at. Throws Error(usage).
void check_geometry(std::int64_t latent, std::int64_t tokens);

struct Invocation {
  std::string verb;
  std::vector<std::string> arguments;  // after the verb
  std::string command_line;            // as typed, for provenance
};

struct FlagInfo {
  std::string name;  // with underscores
  bool is_switch = false;
  bool nested = false;
  std::string help, fallback;
};

// Collects the flags of an options struct.
class FlagCollector {
 public:
  template <typename T>
  void operator()(const char* name, T& value, const char* help) {
    FlagInfo flag;
    flag.name = name;
    flag.help = help;
    flag.is_switch = std::is_same_v<T, bool>;
    flag.nested = runtime::HasFields<T> || std::is_same_v<T, Json>;
    if constexpr (!runtime::HasFields<T>) flag.fallback = Json(value).dump();
    flags.push_back(std::move(flag));
  }
  std::vector<FlagInfo> flags;
};

// The settings that were given, as one JSON object. Throws Error(usage); prints help and throws HelpShown on --help.
struct HelpShown {};
// `check_file` gets what the config file alone says, and its name.
using FileCheck = void (*)(const Json& file, const std::string& where);
Json parse_settings(const Invocation& invocation, const std::vector<FlagInfo>& own,
                    const std::vector<std::string>& positionals, const std::string& details, FileCheck check_file);

// Applies threads, quiet and the like; returns the common options and takes their keys out of `settings`.
CommonOptions take_common(Json& settings);

template <runtime::HasFields T>
struct Parsed {
  T own;
  CommonOptions common;
  Json settings;  // everything that was set, for provenance
};

// What a config file may hold.
template <runtime::HasFields T>
struct FileFields {
  T own;
  CommonOptions common;
  template <typename V>
  void fields(V& v) {
    own.fields(v);
    common.fields(v);
  }
};

template <runtime::HasFields T>
Parsed<T> parse_command(const Invocation& invocation, const std::vector<std::string>& positionals) {
  T defaults;
  FlagCollector collector;
  defaults.fields(collector);
  Parsed<T> parsed;
  const FileCheck check_file = [](const Json& file, const std::string& where) {
    (void)runtime::read_config<FileFields<T>>(file, where);
  };
  parsed.settings = parse_settings(invocation, collector.flags, positionals, runtime::config_help<T>(), check_file);
  Json own = parsed.settings;
  parsed.common = take_common(own);
  try {
    parsed.own = runtime::read_config<T>(own, invocation.verb);
  } catch (const runtime::Error& error) {
    // A wrong value in a flag is a usage error; what a file says wrongly was reported with the file's name already.
    throw runtime::usage_error(error.what(), "; see `laptopdiff ", invocation.verb, " --help`");
  }
  return parsed;
}

// The file to write can be written, may be (--overwrite) and is none of what is read. Throws as runtime::check_output
// and check_apart.
void check_result(const std::string& output, const CommonOptions& common, const Json& settings);

// Throws Error(usage) naming the flag where a required text field is empty.
void require_option(const std::string& value, const std::string& flag, const Invocation& invocation);

// {"command", "version", "commit", "torch"} for `made_by`.
Json provenance(const Invocation& invocation);

// A verb: its name, one line of help, what runs it, and whether several processes may share its work. The table is in
// verbs.cpp.
struct Verb {
  const char* name;
  const char* summary;
  void (*run)(const Invocation&);
  bool parallel = false;
};
const std::vector<Verb>& verbs();

}  // namespace laptopdiff::experiments
