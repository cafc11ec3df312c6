// Layers whose weights always come from a file: no random initialisation, which costs seconds on a full text encoder.
// Names and shapes of the parameters are those of torch.nn.
#pragma once

#include <ATen/core/Tensor.h>
#include <torch/nn/module.h>
#include <torch/nn/pimpl.h>

#include <cstdint>

namespace laptopdiff::diffusion {

enum class Bias { with, without };

// y = x W' + b; weight [out, in], bias [out].
class LinearImpl : public torch::nn::Module {
 public:
  LinearImpl(std::int64_t in, std::int64_t out, Bias bias = Bias::with);
  at::Tensor forward(const at::Tensor& x);
  at::Tensor weight, bias;
};
TORCH_MODULE(Linear);

// Over the last axis; weight, bias [width].
class LayerNormImpl : public torch::nn::Module {
 public:
  LayerNormImpl(std::int64_t width, double eps);
  at::Tensor forward(const at::Tensor& x);
  at::Tensor weight, bias;

 private:
  double eps_;
};
TORCH_MODULE(LayerNorm);

// Over the channels of [B, C, H, W] in `groups`; weight, bias [C].
class GroupNormImpl : public torch::nn::Module {
 public:
  GroupNormImpl(std::int64_t groups, std::int64_t channels, double eps);
  at::Tensor forward(const at::Tensor& x);
  at::Tensor weight, bias;

 private:
  std::int64_t groups_;
  double eps_;
};
TORCH_MODULE(GroupNorm);

struct ConvShape {
  std::int64_t kernel = 3, stride = 1, padding = 1;
};

// Weight [out, in, k, k], bias [out].
class Conv2dImpl : public torch::nn::Module {
 public:
  Conv2dImpl(std::int64_t in, std::int64_t out, ConvShape shape = {}, Bias bias = Bias::with);
  at::Tensor forward(const at::Tensor& x);
  at::Tensor weight, bias;

 private:
  ConvShape shape_;
};
TORCH_MODULE(Conv2d);

// Rows of weight [count, width].
class EmbeddingImpl : public torch::nn::Module {
 public:
  EmbeddingImpl(std::int64_t count, std::int64_t width);
  at::Tensor forward(const at::Tensor& ids);
  at::Tensor weight;
};
TORCH_MODULE(Embedding);

}  // namespace laptopdiff::diffusion
