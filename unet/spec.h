// A spec: a base architecture and what was removed from it. JSON `laptopdiff.spec/1`; a spec set covers the schedule.
//
// A layer's name is its diffusers path in the base and never shifts when a neighbour goes. Two ways to remove:
//   bypass  the layer's residual branch goes, the skips stay
//   drop    the layer goes with the skip it pushes or pops (handcrafted students); whole stages too
// Order means nothing: equality and digest cover base, removals, shell and timesteps. Knows no torch.
#pragma once

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "unet/config.h"
#include "unet/program.h"

namespace laptopdiff::unet {

enum class How { bypass, drop };

struct Removal {
  std::string layer;
  How how = How::bypass;
  auto operator<=>(const Removal&) const = default;
};

struct Totals {
  std::int64_t base = 0, pruned = 0;
};

struct Spec {
  Config base;
  std::vector<Removal> removed;  // as written
  Shell shell = Shell::drop;
  int first_timestep = 0, last_timestep = 1000;  // [first, last)
  std::string weights_sha256;                    // empty: any weights of this base
  Json made_by;                                  // provenance; null where there is none
};

// The removals with every Transformer2DModel path written out as its blocks, sorted, without repeats.
std::vector<Removal> canonical_removals(const Program& base, const Spec& spec);

// Same base config, same effective removals, shell and timesteps.
bool same_spec(const Spec& a, const Spec& b);

// SHA-256 over what same_spec compares.
std::string spec_digest(const Spec& spec);

// The pruned program. Throws Error(bad_input): unknown layer (near names are listed), a second entry inside a dropped
// range, samplers and other layers that cannot be removed, channels, resolution or stack that no longer fit.
Program build_program(const Spec& spec, Geometry geometry = {});

// The same for a base program at hand.
Program prune(const Program& base, const Spec& spec);

// Reads and checks: format, unknown keys, and totals where present. Throws Error(bad_input).
Spec parse_spec(const Json& json, const std::string& where);
Spec read_spec(const std::filesystem::path& path);
// With totals filled in.
Json spec_json(const Spec& spec);

// What a spec file holds: one spec, or a set of them, in order of their timesteps: no gap, no overlap, one base.
struct SpecFile {
  std::filesystem::path path;
  std::vector<Spec> specs;  // empty: no file was named
  bool is_set = false;
};
// Throws Error(bad_input).
SpecFile read_spec_file(const std::filesystem::path& path);
// The set in a file that may be something else, such as a model: nothing where it is no JSON that says it is a set.
// Throws Error(bad_input) where it says so and is none.
std::optional<SpecFile> find_spec_set(const std::filesystem::path& path);
Json spec_set_json(const std::vector<Spec>& students);

// A config.json without bookkeeping (`_...`) keys, for comparing bases.
Json comparable_config(const Json& config);
Json comparable_config(const Config& config);

}  // namespace laptopdiff::unet
