// How well pictures fit their prompts, from CLIP-type embeddings.
#pragma once

#include <ATen/core/Tensor.h>

#include <span>
#include <vector>

namespace laptopdiff::metrics {

// CLIP score of each pair: the cosine of picture i and text i, not multiplied by 100 and not clamped (Hessel et al.,
// "CLIPScore", EMNLP'21, without its weight 2.5 and its clamp, as diffusion papers use it).
// Both f32 [N, P] with rows of length 1. Throws Error(bad_input) where the shapes differ.
std::vector<double> clip_scores(const at::Tensor& image_embeds, const at::Tensor& text_embeds);

// PickScore of each pair: exp(logit_scale) * cosine (Kirstain et al., "Pick-a-Pic", NeurIPS'23).
std::vector<double> pick_scores(const at::Tensor& image_embeds, const at::Tensor& text_embeds, double logit_scale);

// The probability that each candidate picture of one prompt is preferred: the softmax of their PickScores.
// Throws Error(bad_input) for no candidates, Error(non_finite) where a score is NaN or Inf.
std::vector<double> preference_probabilities(std::span<const double> pick_scores);

}  // namespace laptopdiff::metrics
