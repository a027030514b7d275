#include "faces/cli/chart.hpp"

#include <fmt/core.h>

#include <algorithm>
#include <cmath>

namespace extmem::cli {

namespace {

constexpr double kWidth = 900, kHeight = 420, kLeft = 90, kRight = 20, kTop = 50, kBottom = 70;

std::string escaped(const std::string& text) {
  std::string out;
  for (const char c : text) {
    switch (c) {
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '&':
        out += "&amp;";
        break;
      default:
        out += c;
    }
  }
  return out;
}

/// A step of 1, 2 or 5 times a power of ten (or of two, which suits bytes) that divides `most` into about five.
double step_of(double most) { return most <= 0 ? 1 : std::exp2(std::ceil(std::log2(most / 6))); }

}  // namespace

std::string draw_chart(const std::string& title, const std::string& x_name,
                       const std::vector<ChartLine>& lines, std::string (*y_text)(double)) {
  double most_x = 0;
  double most_y = 0;
  for (const ChartLine& line : lines) {
    for (const auto& [x, y] : line.points) {
      most_x = std::max(most_x, x);
      most_y = std::max(most_y, y);
    }
  }
  const double step = step_of(most_y);
  const double top = step * std::max(1.0, std::ceil(most_y / step));
  const auto place_x = [&](double x) {
    return kLeft + (kWidth - kLeft - kRight) * (most_x > 0 ? x / most_x : 0);
  };
  const auto place_y = [&](double y) { return kHeight - kBottom - (kHeight - kTop - kBottom) * y / top; };
  std::string svg = fmt::format(
      "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {} {}\" font-family=\"sans-serif\" "
      "font-size=\"13\">\n"
      "<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n<text x=\"{}\" y=\"26\" "
      "font-size=\"16\">{}</text>\n",
      kWidth, kHeight, kLeft, escaped(title));
  for (double y = 0; y <= top * 1.0001; y += step) {
    svg += fmt::format(
        "<line x1=\"{0}\" x2=\"{1}\" y1=\"{2:.1f}\" y2=\"{2:.1f}\" stroke=\"#ddd\"/>"
        "<text x=\"{3}\" y=\"{4:.1f}\" text-anchor=\"end\" fill=\"#555\">{5}</text>\n",
        kLeft, kWidth - kRight, place_y(y), kLeft - 8, place_y(y) + 4, escaped(y_text(y)));
  }
  svg += fmt::format("<text x=\"{}\" y=\"{}\" text-anchor=\"end\" fill=\"#555\">{}</text>\n", kWidth - kRight,
                     kHeight - kBottom + 20, escaped(x_name));
  double legend = kLeft;
  for (const ChartLine& line : lines) {
    svg += fmt::format("<polyline fill=\"none\" stroke=\"{}\" stroke-width=\"1.8\" points=\"", line.color);
    for (const auto& [x, y] : line.points) svg += fmt::format("{:.1f},{:.1f} ", place_x(x), place_y(y));
    svg += fmt::format(
        "\"/>\n<line x1=\"{0}\" x2=\"{1}\" y1=\"{2}\" y2=\"{2}\" stroke=\"{3}\" stroke-width=\"4\"/>"
        "<text x=\"{4}\" y=\"{5}\">{6}</text>\n",
        legend, legend + 20, kHeight - 22, line.color, legend + 26, kHeight - 18, escaped(line.name));
    legend += 50 + 8.0 * static_cast<double>(line.name.size());
  }
  return svg + "</svg>\n";
}

}  // namespace extmem::cli
