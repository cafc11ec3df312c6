// Resizing and cropping of 8-bit pictures, byte for byte as Pillow does it.
//
// Every published CLIP-type score and FDD is computed on pictures that Pillow resized; another resampler moves the
// scores (Parmar et al., "On aliased resizing and surprising subtleties in GAN evaluation", CVPR'22). Letters: H, W
// the picture's height and width, C its channels.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>

namespace laptopdiff::metrics {

// The filters that published preprocessors use; the values are Pillow's numbers.
enum class Resample { bilinear = 2, bicubic = 3 };

// From Pillow's number; `where` names the place in errors. Throws Error(bad_input) for other filters.
Resample resample_from_pillow(std::int64_t number, const std::string& where);
std::string resample_name(Resample resample);

struct PictureSize {
  std::int64_t height = 0, width = 0;
  bool operator==(const PictureSize&) const = default;
};

// "640x480" (height x width)
std::string size_text(const PictureSize& size);

// Which of the two passes comes first; as each rounds to 8 bits, the order shows. Up to Pillow 12, with which the
// published scores were made, it is always the horizontal one. Pillow 13 begins with the vertical pass where the height
// loses more than twice as many pixels as the width (python-pillow/Pillow pull request 9549), so on tall pictures.
enum class PassOrder { pillow_12, pillow_13 };
std::string pass_order_name(PassOrder order);

// Resizes U8 [H, W, C] to U8 [size.height, size.width, C]. The filter (bicubic has a = -0.5) is widened by the shrink
// factor; each pass rounds to 8 bits with 22-bit fixed-point weights. A pass that would not change its side is left
// out. Throws Error(bad_input) where a side is not positive.
at::Tensor resize(const at::Tensor& picture, const PictureSize& size, Resample resample,
                  PassOrder order = PassOrder::pillow_12);

// The size whose short side is `shortest_edge` at the same aspect ratio: the long side is trunc(edge * long / short).
PictureSize shortest_edge_size(const PictureSize& picture, std::int64_t shortest_edge);

// Where a centre crop of an odd margin starts: transformers takes floor(margin / 2), torchvision rounds margin / 2 half
// to even. They differ by one pixel at margins 3, 7, 11, ...
enum class CropRule { transformers, torchvision };
std::string crop_rule_name(CropRule rule);

// Cuts U8 [H, W, C] to its centre. Where the picture is smaller than the crop, zeros surround it.
at::Tensor center_crop(const at::Tensor& picture, const PictureSize& size, CropRule rule);

}  // namespace laptopdiff::metrics
