// Inline SVG: marks, and a chart with two axes. Colours and fonts are CSS classes of the page (style.h), so that a
// drawing follows the reader's light or dark setting.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace laptopdiff::report {

enum class Shape { circle, square, triangle, diamond };

// A drawing in pixels, y downwards. Texts, tooltips and labels are escaped here; classes are ours and are not.
class Svg {
 public:
  // `label` is what a screen reader says instead of the drawing.
  Svg(double width, double height, std::string_view label);

  void rect(double x, double y, double width, double height, std::string_view classes, std::string_view tooltip = "",
            std::string_view style = "");
  void line(double x1, double y1, double x2, double y2, std::string_view classes);
  void mark(Shape shape, double x, double y, double radius, std::string_view classes, std::string_view tooltip = "");
  void text(double x, double y, std::string_view text, std::string_view classes = "");
  void vertical_text(double x, double y, std::string_view text, std::string_view classes = "");
  void polyline(const std::vector<std::pair<double, double>>& points, std::string_view classes,
                std::string_view tooltip = "", std::string_view style = "");
  // The whole element.
  std::string str() const;
  double width() const { return width_; }
  double height() const { return height_; }

 private:
  void close(std::string_view element, std::string_view tooltip);

  double width_, height_;
  std::string label_, body_;
};

enum class Scaling { linear, log };

struct Axis {
  std::string label;
  Scaling scaling = Scaling::linear;
  double low = 0, high = 1;  // both above 0 where the scaling is log

  // Where a value lies, 0 at low and 1 at high; values beyond are cut.
  double at(double value) const;
  // Values with their texts, at most about `most`.
  std::vector<std::pair<double, std::string>> ticks(int most = 6) const;
};

// An axis with some room around the values; log axes leave out what is not above 0. [0, 1] or [0.1, 1] without values.
Axis axis_around(std::string label, Scaling scaling, const std::vector<double>& values);

// A chart: frame, grid, ticks and labels; x() and y() say where values go.
class Chart {
 public:
  Chart(double width, double height, Axis x, Axis y, std::string_view label);
  double x(double value) const { return left_ + x_.at(value) * (right_ - left_); }
  double y(double value) const { return bottom_ - y_.at(value) * (bottom_ - top_); }
  double left() const { return left_; }
  double right() const { return right_; }
  double top() const { return top_; }
  double bottom() const { return bottom_; }
  Svg& svg() { return svg_; }
  std::string str() const { return svg_.str(); }

 private:
  void draw_frame();

  Axis x_, y_;
  double left_, right_, top_, bottom_;
  Svg svg_;
};

}  // namespace laptopdiff::report
