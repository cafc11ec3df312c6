#include "metrics/scores.h"

#include <torch/types.h>

#include <algorithm>
#include <cmath>

#include "runtime/error.h"
#include "runtime/tensors.h"

namespace laptopdiff::metrics {

using namespace runtime;

std::vector<double> clip_scores(const at::Tensor& image_embeds, const at::Tensor& text_embeds) {
  if (image_embeds.dim() != 2 || image_embeds.sizes() != text_embeds.sizes()) {
    throw input_error("scores: picture embeddings ", sizes_text(image_embeds), " and text embeddings ",
                      sizes_text(text_embeds), " must be pairs of one shape [N, P]");
  }
  const at::Tensor cosines = (image_embeds.to(at::kDouble) * text_embeds.to(at::kDouble)).sum(-1).contiguous();
  const double* first = cosines.const_data_ptr<double>();
  return {first, first + cosines.numel()};
}

std::vector<double> pick_scores(const at::Tensor& image_embeds, const at::Tensor& text_embeds, double logit_scale) {
  std::vector<double> scores = clip_scores(image_embeds, text_embeds);
  for (double& score : scores) score *= std::exp(logit_scale);
  return scores;
}

std::vector<double> preference_probabilities(std::span<const double> pick_scores) {
  if (pick_scores.empty()) throw input_error("preference: there are no candidates");
  const double most = *std::max_element(pick_scores.begin(), pick_scores.end());  // keeps exp from overflowing
  std::vector<double> probabilities;
  double total = 0;
  for (const double score : pick_scores) {
    if (!std::isfinite(score))
      throw non_finite_error("preference: candidate ", probabilities.size(), " scores ", score);
    total += probabilities.emplace_back(std::exp(score - most));
  }
  for (double& probability : probabilities) probability /= total;
  return probabilities;
}

}  // namespace laptopdiff::metrics
