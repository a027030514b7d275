#include "faces/cli/format.hpp"

#include <fmt/core.h>

#include <algorithm>

namespace extmem::cli {

std::string bytes_text(std::uint64_t bytes) {
  constexpr const char* kUnits[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
  std::size_t unit = 0;
  std::uint64_t scale = 1;
  for (; unit + 1 < std::size(kUnits) && bytes / scale >= 1024; ++unit) scale *= 1024;
  if (bytes % scale == 0) return fmt::format("{} {}", bytes / scale, kUnits[unit]);
  return fmt::format("{}.{} {}", bytes / scale, bytes % scale * 10 / scale, kUnits[unit]);
}

std::string count_text(std::uint64_t count) {
  std::string text = fmt::format("{}", count);
  for (std::size_t at = text.size(); at > 3; at -= 3) text.insert(at - 3, ",");
  return text;
}

std::string time_text(double seconds) {
  struct Unit {
    double scale;
    const char* name;
  };
  for (const Unit& unit : {Unit{1, "s"}, Unit{1e-3, "ms"}, Unit{1e-6, "µs"}}) {
    if (seconds < unit.scale) continue;
    const double value = seconds / unit.scale;
    return fmt::format("{:.{}f} {}", value, value < 10 ? 2 : value < 100 ? 1 : 0, unit.name);
  }
  return fmt::format("{:.1f} ns", seconds * 1e9);
}

std::string share_text(double part, double whole) {
  if (part <= 0 || whole <= 0) return "0 %";
  const double percent = part / whole * 100;
  if (percent < 0.5) return "<1 %";
  return percent > 99.5 && percent < 100 ? ">99 %" : fmt::format("{:.0f} %", percent);
}

std::string hex_text(std::uint64_t value) { return fmt::format("{:#x}", value); }

std::string plural(std::uint64_t count, const std::string& noun, const std::string& many) {
  return fmt::format("{} {}", count_text(count), count == 1 ? noun : many.empty() ? noun + "s" : many);
}

std::string clean(const std::string& name) {
  std::string text = name;
  std::replace_if(
      text.begin(), text.end(),
      [](char c) { return static_cast<unsigned char>(c) < 0x20 || static_cast<unsigned char>(c) >= 0x7f; },
      '?');
  return text;
}

}  // namespace extmem::cli
