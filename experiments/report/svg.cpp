#include "experiments/report/svg.h"

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "experiments/report/html.h"
#include "experiments/report/numbers.h"
#include "runtime/error.h"

namespace laptopdiff::report {
namespace {

using runtime::cat;

constexpr double kLeft = 58, kRight = 14, kTop = 12, kBottom = 44;
constexpr double kCharacter = 6.2;  // about the width of a tick's character

std::string px(double value) {
  char text[32];
  std::snprintf(text, sizeof text, "%.1f", std::abs(value) < 0.05 ? 0.0 : value);
  return text;
}

std::string classes_of(std::string_view classes) { return classes.empty() ? "" : cat(" class=\"", classes, "\""); }
std::string style_of(std::string_view style) { return style.empty() ? "" : cat(" style=\"", escape(style), "\""); }

std::vector<std::pair<double, std::string>> linear_ticks(double low, double high, int most) {
  const double raw = (high - low) / std::max(1, most - 1);
  const double magnitude = std::pow(10.0, std::floor(std::log10(raw)));
  const double share = raw / magnitude;
  const double step = (share <= 1.5 ? 1 : share <= 3.5 ? 2 : share <= 7 ? 5 : 10) * magnitude;
  std::vector<std::pair<double, std::string>> ticks;
  for (double k = std::ceil(low / step - 1e-9); k * step <= high + step * 1e-9; ++k) {
    const double value = k == 0 ? 0 : k * step;  // no negative zero
    ticks.emplace_back(value, significant(value));
  }
  return ticks;
}

// Powers of ten; 1-2-5 where they would be fewer than three, and even steps where those would be too.
std::vector<std::pair<double, std::string>> log_ticks(double low, double high, int most) {
  const int first = static_cast<int>(std::ceil(std::log10(low) - 1e-9)),
            last = static_cast<int>(std::floor(std::log10(high) + 1e-9));
  std::vector<std::pair<double, std::string>> ticks;
  if (last - first >= 2) {
    const int step = (last - first) / std::max(1, most) + 1;
    const bool plain = first >= -3 && last <= 4;
    for (int k = first; k <= last; k += step)
      ticks.emplace_back(std::pow(10.0, k), plain ? significant(std::pow(10.0, k), 6) : power_of_ten(k));
    return ticks;
  }
  for (int k = first - 1; k <= last; ++k) {
    for (const int factor : {1, 2, 5}) {
      const double value = factor * std::pow(10.0, k);
      if (value >= low * (1 - 1e-9) && value <= high * (1 + 1e-9)) ticks.emplace_back(value, significant(value));
    }
  }
  return ticks.size() >= 3 ? ticks : linear_ticks(low, high, most);
}

}  // namespace

Svg::Svg(double width, double height, std::string_view label) : width_(width), height_(height), label_(label) {}

void Svg::close(std::string_view element, std::string_view tooltip) {
  if (tooltip.empty()) body_ += "/>\n";
  else body_ += cat("><title>", escape(tooltip), "</title></", element, ">\n");
}

void Svg::rect(double x, double y, double width, double height, std::string_view classes, std::string_view tooltip,
               std::string_view style) {
  body_ += cat("<rect x=\"", px(x), "\" y=\"", px(y), "\" width=\"", px(width), "\" height=\"", px(height), "\"",
               classes_of(classes), style_of(style));
  close("rect", tooltip);
}

void Svg::line(double x1, double y1, double x2, double y2, std::string_view classes) {
  body_ += cat("<line x1=\"", px(x1), "\" y1=\"", px(y1), "\" x2=\"", px(x2), "\" y2=\"", px(y2), "\"",
               classes_of(classes), "/>\n");
}

void Svg::mark(Shape shape, double x, double y, double r, std::string_view classes, std::string_view tooltip) {
  if (shape == Shape::circle) {
    body_ += cat("<circle cx=\"", px(x), "\" cy=\"", px(y), "\" r=\"", px(r), "\"", classes_of(classes));
    return close("circle", tooltip);
  }
  const std::vector<std::pair<double, double>> corners =
      shape == Shape::square
          ? std::vector<std::pair<double, double>>{{-0.9, -0.9}, {0.9, -0.9}, {0.9, 0.9}, {-0.9, 0.9}}
      : shape == Shape::triangle ? std::vector<std::pair<double, double>>{{0, -1.2}, {1.1, 0.8}, {-1.1, 0.8}}
                                 : std::vector<std::pair<double, double>>{{0, -1.25}, {1.25, 0}, {0, 1.25}, {-1.25, 0}};
  body_ += "<polygon points=\"";
  for (const auto& [dx, dy] : corners) body_ += cat(px(x + r * dx), ",", px(y + r * dy), " ");
  body_ += cat("\"", classes_of(classes));
  close("polygon", tooltip);
}

void Svg::text(double x, double y, std::string_view text, std::string_view classes) {
  body_ += cat("<text x=\"", px(x), "\" y=\"", px(y), "\"", classes_of(classes), ">", escape(text), "</text>\n");
}

void Svg::vertical_text(double x, double y, std::string_view text, std::string_view classes) {
  body_ += cat("<text transform=\"translate(", px(x), " ", px(y), ") rotate(-90)\"", classes_of(classes), ">",
               escape(text), "</text>\n");
}

void Svg::polyline(const std::vector<std::pair<double, double>>& points, std::string_view classes,
                   std::string_view tooltip, std::string_view style) {
  body_ += "<polyline points=\"";
  for (const auto& [x, y] : points) body_ += cat(px(x), ",", px(y), " ");
  body_ += cat("\"", classes_of(classes), style_of(style));
  close("polyline", tooltip);
}

std::string Svg::str() const {
  return cat("<svg viewBox=\"0 0 ", px(width_), " ", px(height_), "\" style=\"max-width:", px(width_),
             "px\" role=\"img\" aria-label=\"", escape(label_), "\">\n", body_, "</svg>\n");
}

double Axis::at(double value) const {
  const double share = scaling == Scaling::linear ? (value - low) / (high - low)
                       : value <= 0               ? 0.0
                                                  : std::log(value / low) / std::log(high / low);
  return std::clamp(share, 0.0, 1.0);
}

std::vector<std::pair<double, std::string>> Axis::ticks(int most) const {
  return scaling == Scaling::linear ? linear_ticks(low, high, most) : log_ticks(low, high, most);
}

Axis axis_around(std::string label, Scaling scaling, const std::vector<double>& values) {
  double low = 0, high = 0;
  bool any = false;
  for (const double value : values) {
    if (!std::isfinite(value) || (scaling == Scaling::log && value <= 0)) continue;
    low = any ? std::min(low, value) : value;
    high = any ? std::max(high, value) : value;
    any = true;
  }
  if (scaling == Scaling::log) {
    if (!any) return {std::move(label), scaling, 0.1, 1};
    const double room = std::pow(std::max(high / low, 2.0), 0.06);
    return {std::move(label), scaling, low / room, high * room};
  }
  if (!any) return {std::move(label), scaling, 0, 1};
  const double room = high > low ? 0.07 * (high - low) : std::max(0.1 * std::abs(high), 1e-3);
  return {std::move(label), scaling, low - room, high + room};
}

Chart::Chart(double width, double height, Axis x, Axis y, std::string_view label)
    : x_(std::move(x)),
      y_(std::move(y)),
      left_(kLeft),
      right_(width - kRight),
      top_(kTop),
      bottom_(height - kBottom),
      svg_(width, height, label) {
  draw_frame();
}

void Chart::draw_frame() {
  for (const auto& [value, text] : y_.ticks()) {
    svg_.line(left_, y(value), right_, y(value), "grid");
    svg_.text(left_ - 7, y(value) + 4, text, "tick end");
  }
  double free_from = -1e9;  // labels that would overlap the one before are left out
  for (const auto& [value, text] : x_.ticks()) {
    svg_.line(x(value), top_, x(value), bottom_, "grid");
    const double half = kCharacter * static_cast<double>(text.size()) / 2;
    if (x(value) - half < free_from) continue;
    svg_.text(x(value), bottom_ + 17, text, "tick middle");
    free_from = x(value) + half + 4;
  }
  svg_.line(left_, bottom_, right_, bottom_, "axis");
  svg_.text((left_ + right_) / 2, bottom_ + 36, x_.label, "label middle");
  svg_.vertical_text(14, (top_ + bottom_) / 2, y_.label, "label middle");
}

}  // namespace laptopdiff::report
