#include "pruning/criteria.h"

#include "pruning/criteria/rows.h"
#include "runtime/error.h"

namespace laptopdiff::pruning {
namespace {

const char* needs_text(Needs needs) {
  switch (needs) {
    case Needs::weights: return "the weights alone";
    case Needs::inputs: return "a calibration set";
    case Needs::targets:
    case Needs::gradients: return "a calibration set with its noise";
    case Needs::latents: return "a pipeline and prompts";
    case Needs::pictures: return "a pipeline, prompts and a CLIP model";
  }
  return "";
}

}  // namespace

const std::vector<Criterion>& criteria() {
  static const std::vector<Criterion> kRows = {output_loss_row(),  gram_row(),   task_loss_row(), clip_score_row(),
                                               magnitude_row(),    taylor_row(), fisher_row(),    block_influence_row(),
                                               latent_shift_row(), random_row()};
  return kRows;
}

const Criterion& find_criterion(const std::string& name) {
  std::vector<std::string> known;
  for (const Criterion& row : criteria()) {
    if (name == row.name) return row;
    known.emplace_back(row.name);
  }
  throw runtime::usage_error("unknown criterion `", name, "`", runtime::did_you_mean(name, known));
}

std::string criteria_text() {
  std::string text;
  for (const Criterion& row : criteria()) {
    text +=
        runtime::cat("  ", row.name, ": ", row.formula, "\n      from ", needs_text(row.needs), "; ", row.source, "\n");
  }
  return text;
}

}  // namespace laptopdiff::pruning
