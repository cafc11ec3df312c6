// evaluate(variants, inputs): the outputs of any set of variants of one base, sharing all the work they have in common.
//
// The variants' step lists form a trie over base positions. A shared prefix runs once; variants that have diverged run
// together in one batch wherever they next do the same step; variants that skip a step just pass it. Removing each of n
// units costs about half of n forwards this way, and the batches keep the processor busy. A copy of a State is a
// snapshot that costs nothing, so nothing is recomputed within a chunk. Chunks follow from the plan and the memory
// limit alone, never from threads or ranks.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "unet/executor.h"

namespace laptopdiff::pruning {

struct EngineOptions {
  std::int64_t memory_bytes = std::int64_t{4} << 30;  // for the states of variants that run together
  int max_together = 0;  // most variants in one batched step; 0: no limit. 1 gives the naive loop's bits.
};

// One step of the plan: trie nodes that leave a position, and the nodes they become.
struct Move {
  int from, to;
  const unet::Step* step;  // null: the position is passed
};

// What to do for one chunk of variants, position by position.
struct Chunk {
  std::vector<int> variants;             // indices into the set
  int first_position = 0;                // all of the chunk's variants share the base's work before this one
  std::vector<std::vector<Move>> moves;  // by position, from first_position on
  std::vector<int> final_node;           // of each variant
};

struct Plan {
  std::vector<Chunk> chunks;
  std::int64_t macs = 0;        // of the plan, per sample
  std::int64_t naive_macs = 0;  // of running every variant from conv_in
};

// Bytes that one variant's state and scratch take per sample, for the plan's chunking.
std::int64_t bytes_per_variant(const unet::Program& base, std::size_t element_size);

// Samples, from 1 to `most`, with which this many variants fit the limit all at once.
std::int64_t samples_at_once(const unet::Program& base, std::size_t variants, std::int64_t memory_bytes,
                             std::size_t element_size, std::int64_t most);

// Plans the evaluation of `variants` of `base` on `batch` samples at a time. The base itself may be among them.
Plan make_plan(const unet::Program& base, const std::vector<unet::Program>& variants, const EngineOptions& options,
               std::int64_t batch, std::size_t element_size);

// How far the base's own pass has come. Chunks in the plan's order can share one; a later one can also be run alone.
struct BaseRun {
  unet::State state;
  int position = 0;
};

class Engine {
 public:
  // `base` is the full program (positions 0..n-1); `executor` holds its weights. Both must outlive the engine.
  Engine(const unet::Program& base, const unet::Executor& executor, EngineOptions options = {})
      : base_(base), executor_(executor), options_(options) {}

  Plan plan(const std::vector<unet::Program>& variants, std::int64_t batch, std::size_t element_size) const {
    return make_plan(base_, variants, options_, batch, element_size);
  }

  // One output [B, C, H, W] a variant, in order. The plan must come from these variants.
  std::vector<at::Tensor> evaluate(const Plan& plan, const unet::Inputs& inputs) const;

  // The same chunk by chunk: one output a variant of the chunk, in its order. Takes the base's pass on to where the
  // chunk's variants part from it, which must not lie behind.
  BaseRun start(const unet::Inputs& inputs) const { return {executor_.start(inputs), 0}; }
  std::vector<at::Tensor> run_chunk(const Chunk& chunk, BaseRun& base) const;

 private:
  void run_together(const std::vector<Move>& moves, std::vector<unet::State>& states) const;

  const unet::Program& base_;
  const unet::Executor& executor_;
  EngineOptions options_;
};

}  // namespace laptopdiff::pruning
