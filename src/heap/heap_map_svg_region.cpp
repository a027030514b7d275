// The SVG's regions: bars, lanes, names of memzones, tooltips. See heap_map_svg.hpp.
#include "heap/heap_map_svg.hpp"

#include <algorithm>

namespace extmem::heap::map::svg {
namespace {

constexpr std::uint32_t kNone = ~std::uint32_t{0};
constexpr std::uint32_t kInside = kZoneRows;       // the name stands inside the bar
constexpr std::uint32_t kOmitted = kZoneRows + 1;  // no room for the name

}  // namespace

std::uint32_t Svg::x_of(const Plot& plot, std::uint64_t offset) const noexcept {
  const double share = static_cast<double>(offset) / static_cast<double>(plot.info.length);
  return static_cast<std::uint32_t>(share * plot.bar + 0.5);
}

// A label starts at its memzone and runs to the right; its line goes down to the bar. From right to left: a label
// that would run over the lines of others goes above all of these, so lines never cross names.
std::uint32_t Svg::place_zones(const Plot& plot, std::uint32_t (&rows)[Plot::kZones]) const noexcept {
  std::uint32_t used = 0;
  for (std::uint32_t i = plot.zone_count; i-- > 0;) {
    const Zone& zone = plot.zones[i];
    Label label;
    const std::uint32_t width = text_width(label.name(zone.name, 28).columns()) + 8;
    const std::uint32_t x = x_of(plot, zone.offset);
    if (x_of(plot, zone.offset + zone.length) - x >= width) {
      rows[i] = kInside;
      continue;
    }
    std::uint32_t row = 0;
    for (std::uint32_t j = i + 1; j < plot.zone_count; ++j) {
      if (rows[j] < kZoneRows && x_of(plot, plot.zones[j].offset) < x + width)
        row = std::max(row, rows[j] + 1);
    }
    rows[i] = row < kZoneRows && kBarX + x + width < kWidth ? row : kOmitted;
    if (rows[i] == row) used = std::max(used, row + 1);
  }
  return used;
}

// Pixels above the bar's bottom at which each kind begins and ends. At most three tags keep their colour.
void Svg::stack(const Column& column, std::uint32_t (&tops)[kKinds + 1]) const noexcept {
  std::uint64_t shares[kKinds];
  std::copy(std::begin(column.bytes), std::end(column.bytes), shares);
  std::uint64_t kept[kTagColors] = {};
  for (int i = 0; i < 3; ++i) {
    const std::uint32_t most = most_of(shares, 0, kTagColors);
    if (most == kTagColors) break;
    std::swap(kept[most], shares[most]);
  }
  for (std::uint32_t tag = 0; tag < kTagColors; ++tag) {
    shares[kOtherTags] += shares[tag];
    shares[tag] = kept[tag];
  }
  const auto all = static_cast<double>(all_bytes(shares));
  std::uint64_t passed = 0;
  tops[0] = 0;
  for (std::uint32_t kind = 0; kind < kKinds; ++kind) {
    passed += shares[kind];
    tops[kind + 1] =
        all > 0 ? static_cast<std::uint32_t>(static_cast<double>(passed) / all * kBarHeight + 0.5) : 0;
  }
  if (held_bytes(shares) > 0 && tops[kUsedKinds] == 0) {  // a little is not nothing
    for (std::uint32_t kind = most_of(shares, 0, kUsedKinds); kind < kKinds; ++kind)
      tops[kind + 1] = std::max(tops[kind + 1], 1u);
  }
}

template <typename F>
void Svg::boxes(const Plot& plot, std::string_view css, F&& value) noexcept {
  bool open = false;
  const std::uint32_t w = unit(plot);
  for (std::uint32_t i = 0; i < plot.columns;) {
    const std::uint32_t look = value(i);
    std::uint32_t end = i + 1;
    while (end < plot.columns && value(end) == look) ++end;
    if (look != kNone) {
      if (!open) out_.raw("<path class=\"").raw(css).raw("\" d=\"");
      open = true;
      const std::uint32_t y = look >> 16, h = look & 0xffff;
      out_.raw("M").number(i * w).raw(" ").number(y).raw("h").number((end - i) * w).raw("v").number(h);
      out_.raw("h-").number((end - i) * w).raw("z");
    }
    i = end;
  }
  if (open) out_.raw("\"/>\n");
}

void Svg::fill(const Plot& plot) noexcept {
  rect(0, kBarY, plot.bar, kBarHeight, "f");
  for (std::uint32_t kind = 0; kind < kFree; ++kind) {
    Label css;
    css.text("k").number(kind);
    boxes(plot, css.view(), [&](std::uint32_t i) {
      std::uint32_t tops[kKinds + 1];
      stack(model_.column(plot, i), tops);
      if (tops[kind + 1] == tops[kind]) return kNone;
      return (kBarY + kBarHeight - tops[kind + 1]) << 16 | (tops[kind + 1] - tops[kind]);
    });
  }
}

void Svg::classes(const Plot& plot) noexcept {
  for (std::uint32_t size_class = 0; size_class < kClassColors.size(); ++size_class) {
    Label css;
    css.text("s").number(size_class);
    boxes(plot, css.view(), [&](std::uint32_t i) {
      const Column& column = model_.column(plot, i);
      if (column.slab_weight == 0 || class_of(column.slab_object_size) != size_class) return kNone;
      return kClassY << 16 | kClassHeight;
    });
  }
}

void Svg::iovas(const Plot& plot) noexcept {
  const std::uint32_t middle = kIovaY + kIovaHeight / 2;
  out_.raw("<path class=\"u\" d=\"M0 ").number(middle).raw(".5h").number(plot.bar).raw("\"/>\n");
  for (std::uint32_t shade = 0; shade < 3; ++shade) {
    Label css;
    css.text("i").number(shade);
    boxes(plot, css.view(), [&](std::uint32_t i) {
      const Column& column = model_.column(plot, i);
      const std::uint32_t look = column.iova_starts > 1 ? 2u : column.iova_odd ? 1u : 0u;
      return column.iova_known == 0 || look != shade ? kNone : kIovaY << 16 | kIovaHeight;
    });
  }
}

void Svg::ticks(const Plot& plot) noexcept {
  const std::uint32_t y = kIovaY + kIovaHeight + 12;
  Label iova;
  describe_iovas(plot, iova);
  const std::uint32_t width = text_width(iova.columns());
  // Beside a bar that leaves room for it, else between the first two offsets.
  const bool beside = plot.bar + width + 12 <= kMaxBar;
  std::uint32_t parts = plot.bar >= 480 ? 4 : plot.bar >= 240 ? 2 : 1;
  while (!beside && parts > 1 && plot.bar / parts < width + 60) parts /= 2;
  for (std::uint32_t i = 0; i <= parts; ++i) {
    Label label;
    label.bytes(i == parts ? plot.info.length : plot.info.length / parts * i);
    text(plot.bar * i / parts, y, i == 0 ? "s" : i == parts ? "s e" : "s m", label);
  }
  if (beside) {
    text(plot.bar + 10, kIovaY + kIovaHeight, "s", iova);
  } else {
    text(plot.bar / parts / 2, y, "s m", iova);
  }
  if (plot.widened) text(plot.bar + 10, kBarY + 12, "s", "drawn longer than to scale");
}

void Svg::zones(const Plot& plot) noexcept {
  std::uint32_t rows[Plot::kZones];
  place_zones(plot, rows);
  for (std::uint32_t i = 0; i < plot.zone_count; ++i) {
    const Zone& zone = plot.zones[i];
    const std::uint32_t x = x_of(plot, zone.offset);
    Label label;
    label.name(zone.name, 28);
    if (rows[i] == kInside) {
      text(x + 4, kBarY + kBarHeight / 2 + 4, "w", label);
    } else if (rows[i] < kZoneRows) {
      const std::uint32_t up = 6 + rows[i] * kZoneRow;  // the origin is the lane's top
      out_.raw("<path class=\"p\" d=\"M")
          .number(x)
          .raw(".5 -")
          .number(up + 8)
          .raw("V")
          .number(kBarY)
          .raw("\"/>");
      out_.raw("<text class=\"z\" x=\"").number(x + 3).raw("\" y=\"-").number(up).raw("\">").xml(label);
      out_.raw("</text>\n");
    }
  }
}

void Svg::hover(const Plot& plot) noexcept {
  const std::uint32_t most = std::max(4u, 480 / std::max(model_.plot_count, 12u));
  const std::uint32_t step = std::max(1u, (plot.columns + most - 1) / most);
  for (std::uint32_t from = 0; from < plot.columns; from += step) {
    const std::uint32_t to = std::min(from + step, plot.columns);
    std::uint64_t bytes[kKinds];
    model_.sum(plot, from, to, bytes);
    const std::uint32_t w = unit(plot);
    out_.raw("<rect class=\"h\" x=\"").number(from * w).raw("\" y=\"0\" width=\"").number((to - from) * w);
    out_.raw("\" height=\"").number(kIovaY + kIovaHeight).raw("\"><title>");
    Label range;
    range.text("region ")
        .number(plot.info.id.slot)
        .text(", ")
        .bytes(Model::column_start(plot, from))
        .text(" to ");
    out_.xml(range.bytes(to == plot.columns ? plot.info.length : Model::column_start(plot, to)));
    const std::uint64_t all = all_bytes(bytes);
    for (int line = 0; line < 4; ++line) {
      const std::uint32_t kind = most_of(bytes, 0, kKinds);
      if (kind == kKinds) break;
      Label each;
      each.text("\n").percent(bytes[kind], all).text(" ");
      describe_kind(model_, kind, 28, false, each);
      out_.xml(each);
      bytes[kind] = 0;
    }
    // Every memzone is named here, also where the drawing has no room for its name.
    const std::uint64_t begin = Model::column_start(plot, from);
    const std::uint64_t end = to == plot.columns ? plot.info.length : Model::column_start(plot, to);
    for (std::uint32_t i = 0; i < plot.zone_count; ++i) {
      const Zone& zone = plot.zones[i];
      if (zone.offset >= end || zone.offset + zone.length <= begin) continue;
      Label named;
      out_.xml(named.text("\nmemzone ").name(zone.name, 28));
    }
    out_.raw("</title></rect>\n");
  }
}

void Svg::gutter(const Plot& plot) noexcept {
  const RegionInfo& info = plot.info;
  out_.raw("<g transform=\"translate(-").number(kGutter).raw(")\">\n");
  Label title;
  title.text("region ").number(info.id.slot).text(", ").text(backing_name(info.kind));
  text(0, kBarY + 8, "b", title);
  if (info.draining) text(text_width(title.columns()) + 10, kBarY + 8, "r", "draining");
  Label size;
  text(0, kBarY + 23, "g", size.bytes(info.length).text(", OS pages ").bytes(info.os_page_size));
  Label where;
  where.percent(held_bytes(plot.bytes), info.length).text(" held, ").text(info.external ? "external" : "own");
  if (info.numa_node != kAnyNode) where.text(", node ").number(static_cast<unsigned>(info.numa_node));
  if (!info.cpu_accessible) where.text(", device");
  text(0, kBarY + 38, "g", where);
  std::uint32_t rows[Plot::kZones];
  place_zones(plot, rows);
  const auto named = static_cast<std::uint64_t>(
      std::count_if(rows, rows + plot.zone_count, [](std::uint32_t row) { return row <= kInside; }));
  if (plot.zones_seen > named) {
    Label more;
    if (named > 0) more.text("and ");
    count_of(more, plot.zones_seen - named, "memzone");
    text(0, kBarY + 53, "s", more.text(named > 0 ? " more" : ""));
  }
  out_.raw("</g>\n");
}

void Svg::region(const Plot& plot) noexcept {
  std::uint32_t rows[Plot::kZones];
  y_ += place_zones(plot, rows) * kZoneRow;
  out_.raw("<g transform=\"translate(").number(kBarX).raw(",").number(y_).raw(")\" class=\"c\">\n");
  gutter(plot);
  fill(plot);
  classes(plot);
  iovas(plot);
  out_.raw("<rect x=\"-.5\" y=\"")
      .number(kBarY - 1)
      .raw(".5\" width=\"")
      .number(plot.bar + 1)
      .raw("\" height=\"");
  out_.number(kBarHeight + 1).raw("\" class=\"").raw(plot.info.external ? "x" : "o").raw("\"/>\n");
  ticks(plot);
  zones(plot);
  hover(plot);
  out_.raw("</g>\n");
  y_ += kRegionHeight + kRegionGap;
}

}  // namespace extmem::heap::map::svg
