// The verbs, a file each under verbs/, and the few helpers they share.
#pragma once

#include <string>

#include "experiments/command.h"
#include "unet/executor.h"
#include "unet/weights.h"

namespace laptopdiff::experiments {

void run_inspect(const Invocation& invocation);
void run_forward(const Invocation& invocation);
void run_calibrate(const Invocation& invocation);
void run_score(const Invocation& invocation);
void run_solve(const Invocation& invocation);
void run_audit(const Invocation& invocation);
void run_distill(const Invocation& invocation);
void run_sample(const Invocation& invocation);
void run_evaluate(const Invocation& invocation);
void run_sweep(const Invocation& invocation);
void run_report(const Invocation& invocation);
void run_bench(const Invocation& invocation);
void run_doctor(const Invocation& invocation);
void run_completion(const Invocation& invocation);

// Reads a spec and checks that it was made for the architecture of `base` (config without bookkeeping keys).
// Throws Error(bad_input) naming the first field that differs.
unet::Spec load_spec_for(const std::string& path, const unet::Spec& base);

// A model with its weights on the device in the compute type. `spec_path` replaces what the model says was removed;
// its weights_sha256, where present, must be the model's.
struct LoadedModel {
  unet::Spec spec;
  unet::Program base, program;
  runtime::TensorMap weights;  // of `program`, converted
  std::string weights_sha256;  // of the base weights as stored; empty unless asked for
};
enum class WeightsHash { skip, compute };
LoadedModel load_for_device(const std::string& model, const std::string& spec_path, const CommonOptions& common,
                            WeightsHash hash);

// Warns (naming them) where weights hold NaN or Inf, or throws Error(non_finite) where `fatal`.
void check_finite_weights(const runtime::TensorMap& weights, const std::string& where);

}  // namespace laptopdiff::experiments
