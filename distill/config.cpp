#include "distill/config.h"

#include <algorithm>

#include "distill/balance.h"
#include "distill/taps.h"
#include "runtime/error.h"

namespace laptopdiff::distill {
namespace {

using runtime::usage_error;

template <typename T>
void at_least(const char* field, T value, T least) {
  if (!(value >= least)) throw usage_error("distill: `", field, "` is ", value, ", expected at least ", least);
}

void one_of(const char* field, const std::string& value, const std::vector<std::string>& known) {
  if (std::find(known.begin(), known.end(), value) != known.end()) return;
  throw usage_error("distill: `", field, "` is \"", value, "\"", runtime::did_you_mean(value, known));
}

}  // namespace

void check_config(const DistillConfig& c) {
  if (c.pipeline.empty()) throw usage_error("distill: `pipeline` is missing");
  if (c.spec.empty()) throw usage_error("distill: `spec` is missing; `laptopdiff solve` makes one");
  if (c.data.folder.empty()) throw usage_error("distill: `data.folder` is missing");
  at_least<std::int64_t>("steps", c.steps, 1);
  at_least<std::int64_t>("batch", c.batch, 1);
  at_least<std::int64_t>("accumulate", c.accumulate, 1);
  at_least<std::int64_t>("log_every", c.log_every, 1);
  at_least<std::int64_t>("checkpoint_every", c.checkpoint_every, 1);
  at_least<std::int64_t>("data.images", c.data.images, 0);
  at_least<std::int64_t>("seed", c.seed, 0);
  at_least<std::int64_t>("optimizer.warmup", c.optimizer.warmup, 0);
  at_least("optimizer.learning_rate", c.optimizer.learning_rate, 0.0);
  at_least("optimizer.clip_norm", c.optimizer.clip_norm, 0.0);
  for (const auto& [name, value] :
       {std::pair{"loss.task", c.loss.task}, {"loss.output", c.loss.output}, {"loss.feature", c.loss.feature}}) {
    at_least(name, value, 0.0);
  }
  if (c.loss.task + c.loss.output + c.loss.feature <= 0) throw usage_error("distill: all loss weights are 0");
  if (!(c.optimizer.ema_decay >= 0) || c.optimizer.ema_decay >= 1)
    throw usage_error("distill: `optimizer.ema_decay` must be in [0, 1)");
  one_of("optimizer.schedule", c.optimizer.schedule, {"constant", "linear", "cosine"});
  one_of("loss.taps", c.loss.taps, tap_set_names());
  one_of("loss.balance", c.loss.balance, balance_names());
}

}  // namespace laptopdiff::distill
