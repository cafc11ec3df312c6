// How feature terms are weighted against each other. One row a policy, with its formula.
//
// raw_l = mean (f_S - f_T)^2, ms_l = mean f_T^2, n_l = ||f_T||_2 over the batch, N_l elements; no gradient flows into
// the weights. `rel_sq` is our reading of LAPTOP-Diff's normalised feature distillation, which says that terms are
// re-weighted by the L2 norm of the teacher's feature; norm or squared norm is not known, hence the others.
#pragma once

#include <ATen/core/Tensor.h>

#include <string>
#include <vector>

namespace laptopdiff::distill {

// | plain     | raw_l                      | BK-SDM                                        |
// | rel_sq    | raw_l / (ms_l + eps)       | every term is relative to its feature's power |
// | rel_norm  | raw_l / (sqrt(ms_l) + eps) |                                               |
// | norm_max  | raw_l max_k n_k / n_l      | keeps the largest term's scale                |
// | norm_mean | raw_l mean_k n_k / n_l     | keeps the average scale                       |
std::vector<std::string> balance_names();

// Weights of the raw terms, one a tap, f32 [L], from the teacher's features (detached). Throws Error(usage) on an
// unknown name.
at::Tensor balance_weights(const std::string& name, const std::vector<at::Tensor>& teacher_features);

}  // namespace laptopdiff::distill
