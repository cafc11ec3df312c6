#include "pruning/engine.h"

#include <torch/types.h>

#include <algorithm>
#include <map>
#include <numeric>

#include "runtime/error.h"

namespace laptopdiff::pruning {
namespace {

using unet::Program;
using unet::State;
using unet::Step;
using unet::StepKind;

// A variant as one entry a base position: its step there, or null.
using Lane = std::vector<const Step*>;

Lane lane_of(const Program& variant, std::size_t positions) {
  Lane lane(positions, nullptr);
  for (const Step& step : variant.steps) lane[static_cast<std::size_t>(step.position)] = &step;
  return lane;
}

// What a lane does at a position, comparable between lanes: -1 where it passes.
int deed(const Step* step) { return step == nullptr ? -1 : static_cast<int>(step->kind); }

std::size_t first_divergence(const Lane& lane, const Lane& base) {
  std::size_t position = 0;
  while (position < lane.size() && deed(lane[position]) == deed(base[position])) ++position;
  return position;
}

// Variants whose prefixes agree stand side by side, those that diverge from the base last come last.
std::vector<int> trie_order(const std::vector<Lane>& lanes) {
  std::vector<int> order(lanes.size());
  std::iota(order.begin(), order.end(), 0);
  const auto less = [&](int a, int b) {
    const Lane &left = lanes[static_cast<std::size_t>(a)], &right = lanes[static_cast<std::size_t>(b)];
    return std::lexicographical_compare(left.begin(), left.end(), right.begin(), right.end(),
                                        [](const Step* x, const Step* y) { return deed(x) < deed(y); });
  };
  std::stable_sort(order.begin(), order.end(), less);
  return order;
}

// Splits the chunk's trie into moves. Node 0 is the base's state before first_position.
class ChunkPlanner {
 public:
  ChunkPlanner(const std::vector<Lane>& lanes, Chunk& chunk, std::int64_t& macs)
      : lanes_(lanes), chunk_(chunk), macs_(macs) {}

  void run(std::size_t positions) {
    node_.assign(chunk_.variants.size(), 0);
    for (auto position = static_cast<std::size_t>(chunk_.first_position); position < positions; ++position) {
      chunk_.moves.push_back(split(position));
    }
    chunk_.final_node = node_;
  }

 private:
  std::vector<Move> split(std::size_t position) {
    std::map<std::pair<int, int>, int> children;  // (node, deed) -> new node
    std::vector<Move> moves;
    std::vector<int> next(node_.size());
    for (std::size_t i = 0; i < node_.size(); ++i) {
      const Step* step = lanes_[static_cast<std::size_t>(chunk_.variants[i])][position];
      const auto [child, fresh] = children.try_emplace({node_[i], deed(step)}, static_cast<int>(children.size()));
      if (fresh) {
        moves.push_back({node_[i], child->second, step});
        if (step != nullptr) macs_ += step->macs;
      }
      next[i] = child->second;
    }
    node_ = std::move(next);
    return moves;
  }

  const std::vector<Lane>& lanes_;
  Chunk& chunk_;
  std::int64_t& macs_;
  std::vector<int> node_;  // of each of the chunk's variants
};

// Rows of several tensors as one. Consecutive views of one tensor, as split_rows leaves them, are joined without a
// copy.
at::Tensor join_rows(const std::vector<at::Tensor>& parts) {
  const at::Tensor& first = parts.front();
  if (parts.size() == 1) return first;
  std::int64_t offset = first.storage_offset();
  bool consecutive = true;
  for (const at::Tensor& part : parts) {
    consecutive = consecutive && part.is_non_overlapping_and_dense() && part.strides() == first.strides() &&
                  part.is_alias_of(first) && part.storage_offset() == offset && part.sizes() == first.sizes();
    offset += part.numel();
  }
  if (!consecutive) return at::cat(parts, 0);
  std::vector<std::int64_t> sizes = first.sizes().vec();
  sizes[0] *= static_cast<std::int64_t>(parts.size());
  std::vector<std::int64_t> strides = first.strides().vec();
  strides[0] = first.numel() / first.size(0);  // that of a single row may be anything
  return first.as_strided(sizes, strides, first.storage_offset());
}

at::Tensor repeat_rows(const at::Tensor& tensor, std::int64_t times) {
  if (!tensor.defined() || times == 1) return tensor;
  std::vector<std::int64_t> repeats(static_cast<std::size_t>(tensor.dim()), 1);
  repeats[0] = times;
  return tensor.repeat(repeats);
}

bool same_sizes(const State& a, const State& b, StepKind kind) {
  if (a.hidden.sizes() != b.hidden.sizes()) return false;
  const bool needs_skip = kind == StepKind::pop_concat || kind == StepKind::upsample;
  return !needs_skip ||
         (a.skips.empty() == b.skips.empty() && (a.skips.empty() || a.skips.back().sizes() == b.skips.back().sizes()));
}

// The states' rows as one state, with just what `kind` needs.
State join_states(const std::vector<const State*>& states, StepKind kind) {
  const auto gather = [&](const auto& member) {
    std::vector<at::Tensor> parts;
    for (const State* state : states) parts.push_back(member(*state));
    return join_rows(parts);
  };
  const auto times = static_cast<std::int64_t>(states.size());
  State joined = *states.front();
  joined.skips.clear();
  joined.hidden = gather([](const State& s) { return s.hidden; });
  if (kind == StepKind::shell_out) joined.residual = gather([](const State& s) { return s.residual; });
  if (kind == StepKind::pop_concat || kind == StepKind::upsample)
    joined.skips.push_back(gather([](const State& s) { return s.skips.back(); }));
  if (kind == StepKind::resnet) {
    joined.embedding = repeat_rows(joined.embedding, times);
    joined.embedding_act = repeat_rows(joined.embedding_act, times);
  }
  if (kind == StepKind::attn1 || kind == StepKind::attn2) joined.context = repeat_rows(joined.context, times);
  return joined;
}

// Rows [index * rows, ...) of what `kind` changed, put into `state`.
void take_rows(const State& joined, std::int64_t index, StepKind kind, State& state) {
  const std::int64_t rows = state.hidden.size(0);
  if (kind == StepKind::shell_in) state.residual = state.hidden;
  if (kind == StepKind::shell_out) state.residual = at::Tensor();
  if (kind == StepKind::pop_concat) state.skips.pop_back();
  state.hidden = joined.hidden.narrow(0, index * rows, rows);
  state.height = joined.height;
  state.width = joined.width;
}

// Steps that only move handles; batching them would copy for nothing.
bool is_bookkeeping(StepKind kind) { return kind == StepKind::push || kind == StepKind::embed; }

}  // namespace

std::int64_t bytes_per_variant(const Program& base, std::size_t element_size) {
  std::int64_t skips = 0, scratch = 0;
  for (const Step& step : base.steps) {
    const std::int64_t area = std::int64_t{step.height} * step.width;
    if (step.kind == StepKind::push) skips += area * step.out_channels;
    // The widest step, the feed-forward, holds 8C of its first layer, 4C of the product, and its in- and output.
    const int copies = step.kind == StepKind::ff ? 15 : 5;
    scratch = std::max(scratch, area * std::max(step.in_channels, step.out_channels) * copies);
  }
  return (skips + scratch) * static_cast<std::int64_t>(element_size);
}

std::int64_t samples_at_once(const Program& base, std::size_t variants, std::int64_t memory_bytes,
                             std::size_t element_size, std::int64_t most) {
  const std::int64_t each = bytes_per_variant(base, element_size) * static_cast<std::int64_t>(variants);
  return std::clamp<std::int64_t>(memory_bytes / std::max<std::int64_t>(1, each), 1, most);
}

Plan make_plan(const Program& program, const std::vector<Program>& variants, const EngineOptions& options,
               std::int64_t batch, std::size_t element_size) {
  const std::size_t positions = program.steps.size();
  const Lane base = lane_of(program, positions);
  std::vector<Lane> lanes;
  Plan plan;
  for (const Program& variant : variants) {
    lanes.push_back(lane_of(variant, positions));
    plan.naive_macs += variant.macs();
  }
  const std::vector<int> order = trie_order(lanes);
  const std::int64_t fit = options.memory_bytes / std::max<std::int64_t>(1, bytes_per_variant(program, element_size)) /
                           std::max<std::int64_t>(1, batch);  // the product of the two may be beyond any integer
  const auto together = static_cast<std::size_t>(
      std::clamp<std::int64_t>(fit, 1, static_cast<std::int64_t>(std::max<std::size_t>(1, variants.size()))));
  // Late divergence costs least, so the base's own pass goes as far as the last chunk's start.
  std::size_t base_end = 0;
  for (std::size_t begin = 0; begin < order.size(); begin += together) {
    Chunk chunk;
    chunk.variants.assign(order.begin() + static_cast<std::ptrdiff_t>(begin),
                          order.begin() + static_cast<std::ptrdiff_t>(std::min(order.size(), begin + together)));
    std::size_t first = positions;
    for (const int variant : chunk.variants)
      first = std::min(first, first_divergence(lanes[static_cast<std::size_t>(variant)], base));
    chunk.first_position = static_cast<int>(first);
    base_end = std::max(base_end, first);
    ChunkPlanner(lanes, chunk, plan.macs).run(positions);
    plan.chunks.push_back(std::move(chunk));
  }
  for (std::size_t position = 0; position < base_end; ++position) plan.macs += program.steps[position].macs;
  // Stable, so that every standard library numbers the chunks alike: pieces of unfinished work are known by that
  // number.
  std::stable_sort(plan.chunks.begin(), plan.chunks.end(),
                   [](const Chunk& a, const Chunk& b) { return a.first_position < b.first_position; });
  return plan;
}

std::vector<at::Tensor> Engine::evaluate(const Plan& plan, const unet::Inputs& inputs) const {
  std::size_t count = 0;
  for (const Chunk& chunk : plan.chunks) count += chunk.variants.size();
  std::vector<at::Tensor> outputs(count);
  BaseRun base = start(inputs);
  for (const Chunk& chunk : plan.chunks) {
    const std::vector<at::Tensor> own = run_chunk(chunk, base);
    for (std::size_t i = 0; i < own.size(); ++i) outputs[static_cast<std::size_t>(chunk.variants[i])] = own[i];
  }
  return outputs;
}

std::vector<at::Tensor> Engine::run_chunk(const Chunk& chunk, BaseRun& base) const {
  TORCH_CHECK(base.position <= chunk.first_position, "run_chunk: the base is at position ", base.position,
              ", the chunk begins at ", chunk.first_position);
  for (; base.position < chunk.first_position; ++base.position)
    executor_.run(base_.steps[static_cast<std::size_t>(base.position)], base.state);
  std::vector<State> states{base.state};
  for (const std::vector<Move>& moves : chunk.moves) {
    std::vector<State> next(moves.size());
    std::map<int, std::vector<Move>> by_deed;
    for (const Move& move : moves) {
      next[static_cast<std::size_t>(move.to)] = states[static_cast<std::size_t>(move.from)];
      if (move.step != nullptr) by_deed[deed(move.step)].push_back(move);
    }
    states.clear();  // lets go of the hidden states that nobody holds any more
    for (const auto& [kind, together] : by_deed) run_together(together, next);
    states = std::move(next);
  }
  std::vector<at::Tensor> outputs;
  for (const int node : chunk.final_node) outputs.push_back(states[static_cast<std::size_t>(node)].hidden);
  return outputs;
}

void Engine::run_together(const std::vector<Move>& moves, std::vector<State>& states) const {
  const StepKind kind = moves.front().step->kind;
  const auto at = [&](std::size_t i) -> State& { return states[static_cast<std::size_t>(moves[i].to)]; };
  std::vector<bool> done(moves.size(), false);
  for (std::size_t i = 0; i < moves.size(); ++i) {
    if (done[i]) continue;
    std::vector<std::size_t> group{i};
    for (std::size_t j = i + 1; j < moves.size() && !is_bookkeeping(kind); ++j) {
      const bool room = options_.max_together == 0 || group.size() < static_cast<std::size_t>(options_.max_together);
      if (room && !done[j] && same_sizes(at(i), at(j), kind)) group.push_back(j);
    }
    for (const std::size_t member : group) done[member] = true;
    if (group.size() == 1) {
      executor_.run(*moves[i].step, at(i));
      continue;
    }
    std::vector<const State*> members;
    for (const std::size_t member : group) members.push_back(&at(member));
    State joined = join_states(members, kind);
    executor_.run(*moves[i].step, joined);
    // Rows of it must be dense; images may be channels-last, and stay so.
    joined.hidden = joined.hidden.contiguous(joined.hidden.suggest_memory_format());
    for (std::size_t k = 0; k < group.size(); ++k) take_rows(joined, static_cast<std::int64_t>(k), kind, at(group[k]));
  }
}

}  // namespace laptopdiff::pruning
