#include "unet/recover_spec.h"

#include <algorithm>
#include <limits>
#include <numeric>

#include "runtime/error.h"
#include "unet/export_plan.h"
#include "unet/native_config.h"

namespace laptopdiff::unet {
namespace {

using runtime::cat;
using runtime::input_error;

constexpr double kInfinity = std::numeric_limits<double>::infinity();
// Weights overrule the habit only where they are this much nearer; between trained-away layers all are equally far.
constexpr double kClearlyNearer = 0.7;

std::vector<int> first_ones(int count) {
  std::vector<int> list(static_cast<std::size_t>(count));
  std::iota(list.begin(), list.end(), 0);
  return list;
}

enum class Direction { down, up };

// Which of `of` layers a stage that keeps `count` of them is taken to have kept.
std::vector<int> habit(int count, int of, Direction direction) {
  std::vector<int> kept = first_ones(count);
  if (direction == Direction::up && count > 0) kept.back() = of - 1;  // the one that takes the next stage's skip
  return kept;
}

double total(const std::vector<int>& kept, const std::vector<std::vector<double>>& distance) {
  double sum = 0;
  for (std::size_t i = 0; i < kept.size(); ++i) sum += distance[i][static_cast<std::size_t>(kept[i])];
  return sum;
}

// The increasing choice of base layers with the least total distance, by dynamic programming over (student, base).
std::vector<int> nearest(const std::vector<std::vector<double>>& distance, int of) {
  const std::size_t n = distance.size(), m = static_cast<std::size_t>(of);
  std::vector<std::vector<double>> best(n + 1, std::vector<double>(m + 1, kInfinity));
  std::fill(best[n].begin(), best[n].end(), 0.0);
  for (std::size_t i = n; i-- > 0;) {
    for (std::size_t j = m; j-- > 0;) best[i][j] = std::min(best[i][j + 1], distance[i][j] + best[i + 1][j + 1]);
  }
  std::vector<int> kept;
  for (std::size_t i = 0, j = 0; i < n && j < m; ++j) {
    if (best[i][j] == best[i][j + 1]) continue;
    kept.push_back(static_cast<int>(j));
    ++i;
  }
  return kept;
}

class Recovery {
 public:
  Recovery(const Config& student, const Config& base, const LayerDistance& distance)
      : student_(student), base_(base), distance_(distance) {}

  Spec run() {
    if (student_.down.size() > base_.down.size() || student_.mid.size() > base_.mid.size())
      throw input_error("the student has more stages than its base");
    spec_.base = base_;
    keep_shells_ = has_empty_shells();
    spec_.shell = keep_shells_ ? Shell::keep : Shell::drop;
    const std::size_t kept = student_.down.size(), gone = base_.down.size() - kept;
    for (std::size_t i = 0; i < kept; ++i) stage(student_.down[i], base_.down[i], Direction::down);
    for (std::size_t i = kept; i < base_.down.size(); ++i) remove(base_.down[i].path, How::drop);
    middle();
    for (std::size_t i = 0; i < gone; ++i) remove(base_.up[i].path, How::drop);
    for (std::size_t i = 0; i < kept; ++i) stage(student_.up[i], base_.up[i + gone], Direction::up);
    return spec_;
  }

 private:
  void remove(std::string layer, How how) { spec_.removed.push_back({std::move(layer), how}); }

  // A transformer without blocks still has its norm and projections, which only `"shell": "keep"` says.
  bool has_empty_shells() const {
    for (const auto* list : {&student_.down, &student_.mid, &student_.up}) {
      for (const Stage& stage : *list) {
        if (std::find(stage.depth.begin(), stage.depth.end(), 0) != stage.depth.end()) return true;
      }
    }
    return false;
  }

  std::vector<int> choose(const std::vector<std::string>& student, const std::vector<std::string>& base,
                          Direction direction) const {
    const int count = static_cast<int>(student.size()), of = static_cast<int>(base.size());
    const std::vector<int> usual = habit(count, of, direction);
    if (!distance_ || count == of || count == 0) return usual;
    std::vector<std::vector<double>> distance(student.size());
    for (std::size_t i = 0; i < student.size(); ++i) {
      for (const std::string& layer : base) distance[i].push_back(distance_(student[i], layer));
    }
    const std::vector<int> near = nearest(distance, of);
    const bool better = near.size() == usual.size() && total(near, distance) < kClearlyNearer * total(usual, distance);
    return better ? near : usual;
  }

  static std::vector<std::string> paths(const std::string& prefix, int count) {
    std::vector<std::string> list;
    for (int i = 0; i < count; ++i) list.push_back(cat(prefix, i));
    return list;
  }

  void stage(const Stage& student, const Stage& base, Direction direction) {
    if (student.layers > base.layers)
      throw input_error(student.path, " has ", student.layers, " ResNets, its base's ", base.path, " only ",
                        base.layers);
    const std::string resnets = base.path + ".resnets.";
    const std::vector<int> kept =
        choose(paths(student.path + ".resnets.", student.layers), paths(resnets, base.layers), direction);
    for (int j = 0; j < base.layers; ++j) {
      if (!std::binary_search(kept.begin(), kept.end(), j)) remove(cat(resnets, j), How::drop);
    }
    for (std::size_t i = 0; i < kept.size(); ++i) attention(student, static_cast<int>(i), base, kept[i]);
  }

  // The attention behind layer i of the student and layer j of the base.
  void attention(const Stage& student, int i, const Stage& base, int j) {
    if (base.attention == LayerAttention::none) return;
    const std::string path = cat(base.path, ".attentions.", j);
    const bool plain = base.attention == LayerAttention::plain;
    const int depth = plain ? 0 : base.depth[static_cast<std::size_t>(j)];
    if (student.attention == LayerAttention::none) {
      // Bypassing its blocks takes a shell along unless it has none, or shells are kept.
      return remove(path, plain || (depth > 0 && !keep_shells_) ? How::bypass : How::drop);
    }
    if (student.attention != base.attention)
      throw input_error(student.path, " attends in another way than its base's ", base.path);
    if (plain) return;
    const int left = student.depth[static_cast<std::size_t>(i)];
    if (left > depth) throw input_error(student.path, ".attentions.", i, " has more blocks than ", path);
    const std::string blocks = path + ".transformer_blocks.";
    const std::vector<int> kept = choose(paths(cat(student.path, ".attentions.", i, ".transformer_blocks."), left),
                                         paths(blocks, depth), Direction::down);
    for (int k = 0; k < depth; ++k) {
      if (!std::binary_search(kept.begin(), kept.end(), k)) remove(cat(blocks, k), How::bypass);
    }
  }

  void middle() {
    if (base_.mid.empty()) return;
    const Stage& base = base_.mid.front();
    if (student_.mid.empty()) return remove(base.path, How::drop);
    const Stage& student = student_.mid.front();
    const std::vector<int> kept =
        choose(paths("mid_block.resnets.", student.layers), paths("mid_block.resnets.", base.layers), Direction::down);
    for (int j = 0; j < base.layers; ++j) {
      if (!std::binary_search(kept.begin(), kept.end(), j)) remove(cat("mid_block.resnets.", j), How::bypass);
    }
    attention(student, 0, base, 0);
  }

  const Config& student_;
  const Config& base_;
  const LayerDistance& distance_;
  bool keep_shells_ = false;
  Spec spec_;
};

// Empty where the spec's program is the student's.
std::string misfit(const Spec& spec, const Config& student) {
  try {
    const Program pruned = build_program(spec);
    return match_programs(pruned, build_base(student, pruned.geometry)).difference;
  } catch (const runtime::Error& error) {
    return error.what();
  }
}

// "down_blocks.1.downsamplers": these go with their stage, which is listed too.
bool names_sampler(const std::string& path) { return path.ends_with("samplers"); }

// What `drop` of a ResNet takes along.
bool names_attention(const std::string& path) {
  return path.find(".attentions.") != std::string::npos && path.find(".transformer_blocks.") == std::string::npos;
}

// With `shell` drop a bypassed transformer takes its shell along; with keep only a dropped one does.
Removal removal_of(const std::string& path, const std::string& how, const Program& base, Shell shell) {
  if (how == "drop") return {path, How::drop};
  if (how == "skip") {
    for (const Step& step : base.steps) {
      if (step.path != path) continue;
      if (step.kind == StepKind::shell_in && shell == Shell::keep) return {path, How::drop};
      const bool layer = step.kind == StepKind::resnet || step.kind == StepKind::attention;
      if (layer && bypassed_layer(base, step)) return {path, How::drop};  // bypassing would leave a division
    }
  }
  return {path, How::bypass};
}

Spec read_removed_layers(const Json& pairs, const Program& base, Shell shell) {
  Spec spec;
  spec.base = base.config;
  spec.shell = shell;
  for (const Json& pair : pairs) {
    const auto path = pair.at(0).get<std::string>(), how = pair.at(1).get<std::string>();
    if (how == "drop" && (names_sampler(path) || names_attention(path))) continue;
    spec.removed.push_back(removal_of(path, how, base, shell));
  }
  return spec;
}

bool is_list_of_pairs(const Json& list) {
  return list.is_array() && std::all_of(list.begin(), list.end(), [](const Json& pair) {
           return pair.is_array() && pair.size() == 2 && pair[0].is_string() && pair[1].is_string();
         });
}

}  // namespace

Spec spec_of_removed_layers(const Json& config, const std::string& where) {
  const Json pairs = config.at("removed_layers");
  if (!is_list_of_pairs(pairs)) throw input_error(where, ": `removed_layers` must be a list of [layer, how]");
  Json plain = config;
  plain.erase("removed_layers");
  plain.erase("auto_map");
  if (const Json name = config.value("_class_name", Json());
      name.is_string() && name.get<std::string>().starts_with(kPrunedClass))
    plain["_class_name"] = name.get<std::string>().substr(kPrunedClass.size());
  const Program base = build_base(parse_config(plain, where));
  std::string why = "they are not what an export writes";
  for (const Shell shell : {Shell::drop, Shell::keep}) {
    try {
      Spec spec = read_removed_layers(pairs, base, shell);
      if (removed_layers(base, prune(base, spec)) == pairs) return spec;
    } catch (const runtime::Error& error) {
      why = error.what();
    }
  }
  throw input_error(where, ": no spec removes just its `removed_layers`: ", why);
}

Spec recover_spec(const Config& student, const Config& base, const LayerDistance& distance) {
  if (student.model_class != base.model_class)
    throw input_error("not a student of this base: one is a ", student.class_name(), ", the other a ",
                      base.class_name());
  Spec spec = Recovery(student, base, distance).run();
  std::string why = misfit(spec, student);
  if (!why.empty() && distance) {
    spec = Recovery(student, base, nullptr).run();
    why = misfit(spec, student);
  }
  if (!why.empty()) throw input_error("not a student of this base: ", why);
  return spec;
}

}  // namespace laptopdiff::unet
