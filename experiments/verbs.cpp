// The table of verbs.
#include "experiments/verbs.h"

namespace laptopdiff::experiments {

const std::vector<Verb>& verbs() {
  static const std::vector<Verb> kVerbs = {
      {"inspect", "the map of a U-Net: steps, units, params, MACs; what a spec removed", run_inspect},
      {"forward", "one raw pass of a U-Net over inputs from a file", run_forward},
      {"score", "what each layer is worth: output loss and Gram matrix, or another criterion", run_score, true},
      {"solve", "scores and a budget, or a preset, to a spec", run_solve},
      {"audit", "predicted against true loss of masks", run_audit},
      {"calibrate", "fixed U-Net inputs for scoring, from real pictures and captions", run_calibrate},
      {"export", "a pruned U-Net in a form that other tools load: diffusers, dense-zero, single-file", run_export},
      {"distill", "retrain a pruned student against its teacher", run_distill},
      {"sample", "pictures from a pipeline, with its own U-Net or a student's", run_sample},
      {"evaluate", "CLIP score, PickScore, FID, accuracy of a folder of pictures", run_evaluate},
      {"sweep", "a study: axes become arms, shared stages run once, killed and rerun it continues", run_sweep},
      {"report", "a sweep as one self-contained page", run_report},
      {"bench", "times of a forward, a scoring pass, a distillation step, or every layer", run_bench},
      {"doctor", "what is installed and what is not", run_doctor},
      {"completion", "shell completion for bash, zsh or fish", run_completion},
  };
  return kVerbs;
}

}  // namespace laptopdiff::experiments
