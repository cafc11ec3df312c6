#include "diffusion/layers.h"

#include <torch/types.h>

namespace laptopdiff::diffusion {
namespace {

at::Tensor unfilled(at::IntArrayRef shape) { return at::empty(shape, at::kFloat); }

}  // namespace

LinearImpl::LinearImpl(std::int64_t in, std::int64_t out, Bias with_bias) {
  weight = register_parameter("weight", unfilled({out, in}));
  if (with_bias == Bias::with) bias = register_parameter("bias", unfilled({out}));
}
at::Tensor LinearImpl::forward(const at::Tensor& x) { return at::linear(x, weight, bias); }

LayerNormImpl::LayerNormImpl(std::int64_t width, double eps) : eps_(eps) {
  weight = register_parameter("weight", unfilled({width}));
  bias = register_parameter("bias", unfilled({width}));
}
at::Tensor LayerNormImpl::forward(const at::Tensor& x) { return at::layer_norm(x, weight.sizes(), weight, bias, eps_); }

GroupNormImpl::GroupNormImpl(std::int64_t groups, std::int64_t channels, double eps) : groups_(groups), eps_(eps) {
  weight = register_parameter("weight", unfilled({channels}));
  bias = register_parameter("bias", unfilled({channels}));
}
at::Tensor GroupNormImpl::forward(const at::Tensor& x) { return at::group_norm(x, groups_, weight, bias, eps_); }

Conv2dImpl::Conv2dImpl(std::int64_t in, std::int64_t out, ConvShape shape, Bias with_bias) : shape_(shape) {
  weight = register_parameter("weight", unfilled({out, in, shape.kernel, shape.kernel}));
  if (with_bias == Bias::with) bias = register_parameter("bias", unfilled({out}));
}
at::Tensor Conv2dImpl::forward(const at::Tensor& x) {
  return at::conv2d(x, weight, bias, shape_.stride, shape_.padding);
}

EmbeddingImpl::EmbeddingImpl(std::int64_t count, std::int64_t width) {
  weight = register_parameter("weight", unfilled({count, width}));
}
at::Tensor EmbeddingImpl::forward(const at::Tensor& ids) { return at::embedding(weight, ids); }

}  // namespace laptopdiff::diffusion
