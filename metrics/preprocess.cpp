#include "metrics/preprocess.h"

#include <torch/types.h>

#include "runtime/error.h"

namespace laptopdiff::metrics {
namespace {

using namespace runtime;
namespace fs = std::filesystem;

// Says which class wrote the file, or how a caller may hand it pictures; none of these changes the numbers.
const char* const kSilentKeys[] = {
    "image_processor_type", "feature_extractor_type", "processor_class", "do_convert_rgb", "default_to_square",
    "data_format",          "input_data_format",      "device",          "return_tensors", "disable_grouping",
    "size_divisor"};
// ConvNext warps to a square from this size on, and crops below it.
constexpr std::int64_t kConvNextWarp = 384;

std::string processor_type(ObjectReader& in) {
  return in.get<std::string>("image_processor_type", in.get<std::string>("feature_extractor_type", ""));
}

PictureSize positive(PictureSize size, const std::string& where) {
  if (size.height < 1 || size.width < 1) throw input_error(where, ": sides must be positive, is ", size_text(size));
  return size;
}

PictureSize height_and_width(const Json& value, const std::string& where) {
  if (value.is_number_integer()) {
    const auto side = ObjectReader::convert<std::int64_t>(value, where);
    return positive({side, side}, where);
  }
  ObjectReader in(value, where);
  const PictureSize size{in.required<std::int64_t>("height"), in.required<std::int64_t>("width")};
  in.finish();
  return positive(size, where);
}

// A bare number is the short side for the processors that keep the aspect ratio.
std::optional<std::int64_t> short_side(const Json& value, bool keeps_aspect, const std::string& where) {
  std::optional<std::int64_t> side;
  if (value.is_number_integer() && keeps_aspect) side = ObjectReader::convert<std::int64_t>(value, where);
  if (value.is_object() && value.contains("shortest_edge")) {
    ObjectReader in(value, where);
    side = in.required<std::int64_t>("shortest_edge");
    in.finish();
  }
  if (side && *side < 1) throw input_error(where, ": sides must be positive, is ", *side);
  return side;
}

void read_resize(ObjectReader& in, bool keeps_aspect, Preprocess& steps) {
  const std::string where = in.where() + ": `size`";
  if (!in.has("size")) throw input_error(where, " is missing, but do_resize is true");
  steps.shortest_edge = short_side(in.raw("size"), keeps_aspect, where);
  if (!steps.shortest_edge) steps.size = height_and_width(in.raw("size"), where);
}

void read_crop(ObjectReader& in, Preprocess& steps) {
  const std::string where = in.where() + ": `crop_size`";
  if (!in.has("crop_size")) throw input_error(where, " is missing, but do_center_crop is true");
  steps.crop = height_and_width(in.raw("crop_size"), where);
}

void apply_crop_pct(ObjectReader& in, Preprocess& steps) {
  const auto crop_pct = in.get<double>("crop_pct", 224.0 / 256.0);
  if (!(crop_pct > 0 && crop_pct <= 1)) throw input_error(in.where(), ": `crop_pct` must lie in (0, 1], is ", crop_pct);
  if (!steps.shortest_edge) throw input_error(in.where(), ": `size` needs `shortest_edge` beside `crop_pct`");
  const PictureSize square{*steps.shortest_edge, *steps.shortest_edge};
  if (square.height >= kConvNextWarp) {
    steps.shortest_edge.reset();
    steps.size = square;
  } else {
    steps.shortest_edge = static_cast<std::int64_t>(static_cast<double>(square.height) / crop_pct);
    steps.crop = square;
  }
}

std::vector<double> numbers(ObjectReader& in, const std::string& key) {
  const Json& value = in.raw(key);
  const std::string where = in.where() + ": `" + key + "`";
  if (value.is_null()) throw input_error(where, " is missing, but do_normalize is true");
  if (value.is_number()) return {ObjectReader::convert<double>(value, where)};
  if (!value.is_array() || value.empty()) throw input_error(where, " must be a number or a list, is ", value.dump());
  std::vector<double> list;
  for (const Json& item : value) list.push_back(ObjectReader::convert<double>(item, where));
  return list;
}

void read_normalize(ObjectReader& in, Preprocess& steps) {
  steps.mean = numbers(in, "image_mean");
  steps.std = numbers(in, "image_std");
  for (const double value : steps.std) {
    if (!(value > 0)) throw input_error(in.where(), ": `image_std` must be positive, is ", value);
  }
}

// A step that is not known here may change the numbers, unless it is switched off.
void refuse_unknown_steps(const Json& config, const ObjectReader& in) {
  for (const std::string& key : in.unread()) {
    const Json& value = config.at(key);
    if (key.starts_with('_') || value.is_null() || value == Json(false)) continue;
    throw input_error(in.where(), ": `", key, "` = ", value.dump().substr(0, 60), " is not supported");
  }
}

at::Tensor with_channels(const at::Tensor& picture, std::int64_t channels) {
  const std::int64_t has = picture.size(2);
  if (has == channels) return picture;
  if (has == 1 && channels == 3) return picture.expand({-1, -1, 3}).contiguous();
  if (has == 3 && channels == 1) {
    const at::Tensor wide = picture.to(at::kInt);  // Pillow's 16-bit fixed-point luma, rounded
    const auto channel = [&](std::int64_t c) { return wide.select(2, c); };
    const at::Tensor luma = channel(0) * 19595 + channel(1) * 38470 + channel(2) * 7471 + 0x8000;
    return luma.bitwise_right_shift(16).to(at::kByte).unsqueeze(2);
  }
  throw input_error("a picture of ", has, " channels cannot be given to a model of ", channels,
                    "; expected grey (1) or colour (3)");
}

at::Tensor per_channel(const std::vector<double>& values, std::int64_t channels, const char* what) {
  if (values.size() != 1 && static_cast<std::int64_t>(values.size()) != channels) {
    throw input_error("preprocess: ", what, " has ", values.size(), " values, the model has ", channels, " channels");
  }
  return torch::tensor(values, at::kDouble).to(at::kFloat).view({-1, 1, 1});
}

}  // namespace

Preprocess preprocess_from_json(const Json& config, const std::string& where) {
  ObjectReader in(config, where);
  for (const char* key : kSilentKeys) in.ignore(key);
  const std::string type = processor_type(in);
  const bool clip = type.starts_with("CLIP"), conv_next = type.starts_with("ConvNext") || in.has("crop_pct");
  Preprocess steps;
  const bool resizes = in.get<bool>("do_resize", true);
  if (resizes) read_resize(in, clip || conv_next, steps);
  const auto filter =
      clip || conv_next || !resizes ? in.get<std::int64_t>("resample", 3) : in.required<std::int64_t>("resample");
  if (resizes) steps.resample = resample_from_pillow(filter, where);
  if (resizes && conv_next) apply_crop_pct(in, steps);
  if (in.get<bool>("do_center_crop", clip)) read_crop(in, steps);
  if (in.get<bool>("do_rescale", true)) steps.rescale_factor = in.get<double>("rescale_factor", 1.0 / 255.0);
  if (in.get<bool>("do_normalize", true)) read_normalize(in, steps);
  for (const char* key : {"size", "crop_size", "crop_pct", "rescale_factor", "image_mean", "image_std"}) in.ignore(key);
  refuse_unknown_steps(config, in);
  return steps;
}

Preprocess read_preprocess(const fs::path& folder) {
  const fs::path own = folder / "preprocessor_config.json", shared = folder / "processor_config.json";
  if (fs::exists(own)) return preprocess_from_json(read_json(own), own.string());
  if (fs::exists(shared)) {
    const Json config = read_json(shared);
    if (config.is_object() && config.contains("image_processor")) {
      return preprocess_from_json(config.at("image_processor"), shared.string() + ": `image_processor`");
    }
  }
  throw input_error(folder.string(),
                    ": preprocessor_config.json is missing; it says how pictures are resized and "
                    "normalised before scoring");
}

at::Tensor prepare(const at::Tensor& picture, const Preprocess& steps, std::int64_t channels) {
  TORCH_CHECK(picture.dim() == 3, "prepare: expected a picture [H, W, C], got ", picture.dim(), " dimensions");
  at::Tensor x = with_channels(picture, channels);
  const PictureSize from{x.size(0), x.size(1)};
  if (steps.shortest_edge) {
    x = resize(x, shortest_edge_size(from, *steps.shortest_edge), steps.resample, steps.pass_order);
  }
  if (steps.size) x = resize(x, *steps.size, steps.resample, steps.pass_order);
  if (steps.crop) x = center_crop(x, *steps.crop, steps.crop_rule);
  x = x.permute({2, 0, 1});  // [C, h, w]
  x = steps.rescale_factor ? x.to(at::kDouble).mul(*steps.rescale_factor).to(at::kFloat) : x.to(at::kFloat);
  if (!steps.mean.empty()) {
    x = x - per_channel(steps.mean, channels, "image_mean");
    x = x / per_channel(steps.std, channels, "image_std");
  }
  return x.contiguous();
}

at::Tensor prepare_batch(const std::vector<at::Tensor>& pictures, const Preprocess& steps, std::int64_t channels) {
  TORCH_CHECK(!pictures.empty(), "prepare_batch: no pictures");
  std::vector<at::Tensor> prepared;
  for (const at::Tensor& picture : pictures) {
    prepared.push_back(prepare(picture, steps, channels));
    if (prepared.back().sizes() == prepared.front().sizes()) continue;
    const auto size_of = [](const at::Tensor& x) { return size_text({x.size(1), x.size(2)}); };
    throw input_error("pictures are ", size_of(prepared.front()), " and ", size_of(prepared.back()),
                      " after preprocessing; the model's preprocessor_config.json fixes no size, so all pictures must "
                      "have one");
  }
  return at::stack(prepared);
}

Json describe(const Preprocess& steps) {
  Json json = Json::object();
  if (steps.shortest_edge) json["resize"] = cat("short side to ", *steps.shortest_edge, ", long side truncated");
  if (steps.size) json["resize"] = cat("to ", size_text(*steps.size));
  if (json.contains("resize")) {
    json["filter"] =
        cat("Pillow ", resample_name(steps.resample), ", antialiased, 8-bit, ", pass_order_name(steps.pass_order));
  }
  if (steps.crop) json["center_crop"] = cat(size_text(*steps.crop), ", ", crop_rule_name(steps.crop_rule), " rule");
  if (steps.rescale_factor) json["rescale_factor"] = *steps.rescale_factor;
  if (!steps.mean.empty()) {
    json["mean"] = steps.mean;
    json["std"] = steps.std;
  }
  return json;
}

}  // namespace laptopdiff::metrics
