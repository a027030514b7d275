// The heap map as one SVG document: no script, no font, no link; it looks the same in a browser and in librsvg.
//
// A region, drawn in a group whose origin is the upper left corner of its bar:
//
//        |rx-ring                            names of memzones that are too short to hold their name
//   ▂▂▂▂▃▃▃                                  lane: size of the objects in slabs
//   ┌────────────────────────────┐
//   │   each column stacked by what it holds │
//   └────────────────────────────┘
//   ━━━━━━━━━─────━━━━━━━━                    lane: runs of IOVAs
//   0        16 MiB        32 MiB            offsets
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <string_view>

#include "heap/heap_map_render.hpp"

namespace extmem::heap::map::svg {

inline constexpr std::uint32_t kWidth = 1200;
inline constexpr std::uint32_t kMargin = 32;
inline constexpr std::uint32_t kGutter = 196;  // left of the bars: what the region is
inline constexpr std::uint32_t kBarX = kMargin + kGutter;
inline constexpr std::uint32_t kMaxBar = kWidth - kMargin - kBarX;
inline constexpr std::uint32_t kBarHeight = 32;
inline constexpr std::uint32_t kClassY = 0, kClassHeight = 4;
inline constexpr std::uint32_t kBarY = 6;
inline constexpr std::uint32_t kIovaY = kBarY + kBarHeight + 4, kIovaHeight = 6;
inline constexpr std::uint32_t kRegionHeight = kIovaY + kIovaHeight + 14;
inline constexpr std::uint32_t kRegionGap = 18;
inline constexpr std::uint32_t kZoneRow = 13;
inline constexpr std::uint32_t kZoneRows = 3;
inline constexpr std::uint32_t kHeapHeading = 40;
inline constexpr std::uint32_t kCharacter = 69;  // tenths of a pixel, at 11 px, on the wide side

inline constexpr std::array<std::string_view, kKinds> kColors{
    "#44aa99", "#5a5fb0", "#cc6677", "#88ccee", "#882255", "#3f9142", "#999933",
    "#aa88cc", "#94a3b8", "#7d8ca3", "#334155", "#c9d3de", "#e1e7ed", "#f8fafb"};
inline constexpr std::array<std::string_view, 6> kClassColors{"#fbe6c6", "#f6c98a", "#eda552",
                                                              "#d67f2a", "#ab5a12", "#743806"};
inline constexpr std::array<std::uint32_t, 6> kClassLimits{64, 256, 1024, 4096, 16384, ~std::uint32_t{0}};
inline constexpr std::array<std::string_view, 6> kClassNames{"≤ 64 B", "256 B",  "1 KiB",
                                                             "4 KiB",  "16 KiB", "more"};

inline std::uint32_t text_width(std::size_t characters) noexcept {
  return static_cast<std::uint32_t>(characters) * kCharacter / 10;
}

inline std::uint32_t class_of(std::uint32_t object_size) noexcept {
  std::uint32_t i = 0;
  while (object_size > kClassLimits[i]) ++i;
  return i;
}

class Svg {
 public:
  Svg(const Model& model, Writer& out) noexcept : model_(model), out_(out) {}
  void document(const HeapMapOptions& options) noexcept;

 private:
  void head(const HeapMapOptions& options) noexcept;
  void legend(bool draw) noexcept;
  void legend_item(bool draw, std::string_view swatch, const Label& label) noexcept;
  void legend_row(bool draw, std::string_view heading) noexcept;
  void heap(const HeapRow* row, std::uint32_t id) noexcept;
  void region(const Plot& plot) noexcept;
  void gutter(const Plot& plot) noexcept;
  void fill(const Plot& plot) noexcept;
  void classes(const Plot& plot) noexcept;
  void iovas(const Plot& plot) noexcept;
  void ticks(const Plot& plot) noexcept;
  void zones(const Plot& plot) noexcept;
  void hover(const Plot& plot) noexcept;

  [[nodiscard]] std::uint32_t unit(const Plot& plot) const noexcept {
    return plot.bar / std::max(plot.columns, 1u);
  }
  [[nodiscard]] std::uint32_t x_of(const Plot& plot, std::uint64_t offset) const noexcept;
  /// Gives each memzone that cannot hold its own name a row above the bar. Returns the number of rows.
  std::uint32_t place_zones(const Plot& plot, std::uint32_t (&rows)[Plot::kZones]) const noexcept;
  void stack(const Column& column, std::uint32_t (&tops)[kKinds + 1]) const noexcept;
  /// Boxes for runs of columns that look the same: value(i) names the look, kNone draws nothing.
  template <typename F>
  void boxes(const Plot& plot, std::string_view css, F&& value) noexcept;

  void rect(std::uint32_t x, std::uint32_t y, std::uint32_t w, std::uint32_t h,
            std::string_view css) noexcept {
    out_.raw("<rect x=\"")
        .number(x)
        .raw("\" y=\"")
        .number(y)
        .raw("\" width=\"")
        .number(w)
        .raw("\" height=\"");
    out_.number(h).raw("\" class=\"").raw(css).raw("\"/>\n");
  }
  void text(std::uint32_t x, std::uint32_t y, std::string_view css, const Label& label) noexcept {
    out_.raw("<text x=\"")
        .number(x)
        .raw("\" y=\"")
        .number(y)
        .raw("\" class=\"")
        .raw(css)
        .raw("\">")
        .xml(label);
    out_.raw("</text>\n");
  }
  void text(std::uint32_t x, std::uint32_t y, std::string_view css, std::string_view s) noexcept {
    Label label;
    text(x, y, css, label.text(s));
  }

  const Model& model_;
  Writer& out_;
  std::uint32_t y_ = 0;
  std::uint32_t legend_x_ = 0;
};

}  // namespace extmem::heap::map::svg
