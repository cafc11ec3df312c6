#include "metrics/resize.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "runtime/error.h"

namespace laptopdiff::metrics {
namespace {

using runtime::input_error;

// 8 bits for the pixel and 2 for the overshoot of bicubic leave 22 of 32 for the weight.
constexpr int kWeightBits = 32 - 8 - 2;

double bilinear_weight(double x) {
  x = std::abs(x);
  return x < 1 ? 1 - x : 0;
}

double bicubic_weight(double x) {
  constexpr double a = -0.5;
  x = std::abs(x);
  if (x < 1) return ((a + 2) * x - (a + 3)) * x * x + 1;
  if (x < 2) return (((x - 5) * x + 8) * x - 4) * a;
  return 0;
}

struct Filter {
  double (*weight)(double);
  double support;
};

Filter filter_of(Resample resample) {
  return resample == Resample::bicubic ? Filter{bicubic_weight, 2} : Filter{bilinear_weight, 1};
}

// One output pixel: a weighted sum of the inputs from `first` on.
struct Window {
  std::int64_t first = 0;
  std::vector<std::int32_t> weights;
};

std::vector<std::int32_t> fixed_point(const std::vector<double>& weights, double total) {
  std::vector<std::int32_t> fixed;
  for (double weight : weights) {
    if (total != 0) weight /= total;
    fixed.push_back(static_cast<std::int32_t>(weight * (1 << kWeightBits) + (weight < 0 ? -0.5 : 0.5)));
  }
  return fixed;
}

std::vector<Window> windows(std::int64_t in_side, std::int64_t out_side, const Filter& filter) {
  const double scale = static_cast<double>(in_side) / static_cast<double>(out_side);
  const double widening = std::max(scale, 1.0);
  const double support = filter.support * widening;
  const double inverse = 1.0 / widening;  // multiplied, not divided by: the rounding must be Pillow's
  std::vector<Window> all(static_cast<std::size_t>(out_side));
  for (std::int64_t i = 0; i < out_side; ++i) {
    const double center = (static_cast<double>(i) + 0.5) * scale;
    const auto first = std::max<std::int64_t>(static_cast<std::int64_t>(center - support + 0.5), 0);
    const auto end = std::min<std::int64_t>(static_cast<std::int64_t>(center + support + 0.5), in_side);
    std::vector<double> weights;
    double total = 0;
    for (std::int64_t x = first; x < end; ++x) {
      weights.push_back(filter.weight((static_cast<double>(x) - center + 0.5) * inverse));
      total += weights.back();
    }
    all[static_cast<std::size_t>(i)] = {first, fixed_point(weights, total)};
  }
  return all;
}

std::uint8_t clip8(std::int32_t sum) { return static_cast<std::uint8_t>(std::clamp(sum >> kWeightBits, 0, 255)); }

// Filters the middle axis of [outer, in, inner]: rows of pixels are outer = H, inner = C; columns outer = 1, inner =
// W*C.
void filter_axis(const std::uint8_t* in, std::uint8_t* out, std::int64_t outer, std::int64_t in_side,
                 std::int64_t inner, const std::vector<Window>& windows) {
  std::vector<std::int32_t> sums(static_cast<std::size_t>(inner));
  for (std::int64_t o = 0; o < outer; ++o, in += in_side * inner) {
    for (const Window& window : windows) {
      std::fill(sums.begin(), sums.end(), 1 << (kWeightBits - 1));
      const std::uint8_t* source = in + window.first * inner;
      for (const std::int32_t weight : window.weights) {
        for (std::int64_t j = 0; j < inner; ++j) sums[static_cast<std::size_t>(j)] += source[j] * weight;
        source += inner;
      }
      out = std::transform(sums.begin(), sums.end(), out, clip8);
    }
  }
}

PictureSize checked_size(const at::Tensor& picture, const char* what) {
  if (picture.scalar_type() != at::kByte || picture.dim() != 3) {
    throw input_error(what, ": expected a picture U8 [H, W, C], got ", picture.scalar_type(), " of ", picture.dim(),
                      " dimensions");
  }
  const PictureSize size{picture.size(0), picture.size(1)};
  if (picture.numel() == 0) throw input_error(what, ": the picture is empty (", size_text(size), ")");
  return size;
}

at::Tensor resize_width(const at::Tensor& picture, std::int64_t width, const Filter& filter) {
  if (picture.size(1) == width) return picture;
  const at::Tensor result = at::empty({picture.size(0), width, picture.size(2)}, at::kByte);
  filter_axis(picture.const_data_ptr<std::uint8_t>(), result.mutable_data_ptr<std::uint8_t>(), picture.size(0),
              picture.size(1), picture.size(2), windows(picture.size(1), width, filter));
  return result;
}

at::Tensor resize_height(const at::Tensor& picture, std::int64_t height, const Filter& filter) {
  if (picture.size(0) == height) return picture;
  const at::Tensor result = at::empty({height, picture.size(1), picture.size(2)}, at::kByte);
  filter_axis(picture.const_data_ptr<std::uint8_t>(), result.mutable_data_ptr<std::uint8_t>(), 1, picture.size(0),
              picture.size(1) * picture.size(2), windows(picture.size(0), height, filter));
  return result;
}

bool vertical_first(const PictureSize& from, const PictureSize& to) {
  return from.height - to.height > 2 * std::max<std::int64_t>(from.width - to.width, 0);
}

std::int64_t floor_half(std::int64_t value) { return value >= 0 ? value / 2 : -((-value + 1) / 2); }

// Index in the picture of the crop's first row or column; negative where zeros come first.
std::int64_t crop_start(std::int64_t side, std::int64_t crop, CropRule rule) {
  const std::int64_t margin = side - crop;
  if (rule == CropRule::transformers) return floor_half(margin);
  if (margin < 0) return -(-margin / 2);
  const std::int64_t half = margin / 2;
  return margin % 2 == 0 ? half : half + half % 2;  // x.5 goes to the even neighbour
}

}  // namespace

Resample resample_from_pillow(std::int64_t number, const std::string& where) {
  if (number == 2) return Resample::bilinear;
  if (number == 3) return Resample::bicubic;
  throw input_error(where, ": resample ", number, " is not supported; expected 2 (bilinear) or 3 (bicubic)");
}

std::string resample_name(Resample resample) { return resample == Resample::bicubic ? "bicubic" : "bilinear"; }

std::string crop_rule_name(CropRule rule) { return rule == CropRule::transformers ? "transformers" : "torchvision"; }

std::string size_text(const PictureSize& size) { return runtime::cat(size.height, "x", size.width); }

std::string pass_order_name(PassOrder order) {
  return order == PassOrder::pillow_12 ? "horizontal pass first" : "pass order of Pillow 13";
}

at::Tensor resize(const at::Tensor& picture, const PictureSize& size, Resample resample, PassOrder order) {
  const PictureSize from = checked_size(picture, "resize");
  if (size.height < 1 || size.width < 1) {
    throw input_error("resize: a ", size_text(from), " picture cannot become ", size_text(size));
  }
  const Filter filter = filter_of(resample);
  const at::Tensor plain = picture.contiguous();
  if (order == PassOrder::pillow_13 && vertical_first(from, size)) {
    return resize_width(resize_height(plain, size.height, filter), size.width, filter);
  }
  return resize_height(resize_width(plain, size.width, filter), size.height, filter);
}

PictureSize shortest_edge_size(const PictureSize& picture, std::int64_t shortest_edge) {
  const auto [short_side, long_side] = std::minmax({picture.height, picture.width});
  // In double, as Python divides: trunc(edge * long / short) of the rounded quotient.
  const auto long_edge =
      static_cast<std::int64_t>(static_cast<double>(shortest_edge * long_side) / static_cast<double>(short_side));
  return picture.width <= picture.height ? PictureSize{long_edge, shortest_edge}
                                         : PictureSize{shortest_edge, long_edge};
}

at::Tensor center_crop(const at::Tensor& picture, const PictureSize& size, CropRule rule) {
  const PictureSize from = checked_size(picture, "center_crop");
  const std::int64_t top = crop_start(from.height, size.height, rule), left = crop_start(from.width, size.width, rule);
  const std::int64_t row = std::max<std::int64_t>(top, 0), column = std::max<std::int64_t>(left, 0);
  const std::int64_t rows = std::min(from.height, top + size.height) - row;
  const std::int64_t columns = std::min(from.width, left + size.width) - column;
  const at::Tensor inside = picture.narrow(0, row, rows).narrow(1, column, columns);
  if (rows == size.height && columns == size.width) return inside.contiguous();
  const at::Tensor result = at::zeros({size.height, size.width, picture.size(2)}, at::kByte);
  result.narrow(0, row - top, rows).narrow(1, column - left, columns).copy_(inside);
  return result;
}

}  // namespace laptopdiff::metrics
