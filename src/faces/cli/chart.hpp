// Chart: lines over a common axis, as an SVG picture that needs nothing else.
#pragma once

#include <string>
#include <utility>
#include <vector>

namespace extmem::cli {

struct ChartLine {
  std::string name;
  std::vector<std::pair<double, double>> points;  // x, y
  std::string color;
};

/// `y_text` turns a value of the left axis into words. Requires: at least one point.
std::string draw_chart(const std::string& title, const std::string& x_name,
                       const std::vector<ChartLine>& lines, std::string (*y_text)(double));

}  // namespace extmem::cli
