// The SVG's document: heading, legend, headings of heaps. See heap_map_svg.hpp.
#include "heap/heap_map_svg.hpp"

#include <algorithm>

namespace extmem::heap::map {
namespace svg {
namespace {

constexpr std::string_view kStyle =
    "text{font:11px system-ui,-apple-system,'Segoe UI','DejaVu Sans',sans-serif;fill:#334155}"
    ".t{font-size:20px;font-weight:600;fill:#0f172a}.n{font-size:14px;font-weight:600;fill:#0f172a}"
    ".b{font-weight:600;fill:#0f172a}.g{fill:#64748b}.s{font-size:10px;fill:#64748b}.w{font-size:10px;fill:#"
    "fff}"
    ".z{font-size:10px}.e{text-anchor:end}.m{text-anchor:middle}.r{font-weight:600;fill:#b91c1c}"
    ".l{stroke:#e2e8f0}.p{stroke:#64748b;stroke-width:1}.h{fill:#000;fill-opacity:0}.h:hover{fill-opacity:."
    "07}"
    ".f{fill:#f8fafb}.o{fill:none;stroke:#475569}.x{fill:none;stroke:#475569;stroke-dasharray:4 3}"
    ".c path,.c rect{shape-rendering:crispEdges}"
    ".i0{fill:#2f6f9f}.i1{fill:#8fbbd9}.i2{fill:url(#many)}.u{stroke:#cbd5e1;stroke-dasharray:1 3}";

}  // namespace

void Svg::heap(const HeapRow* row, std::uint32_t id) noexcept {
  y_ += 6;
  out_.raw("<path class=\"l\" d=\"M")
      .number(kMargin)
      .raw(" ")
      .number(y_)
      .raw(".5H")
      .number(kWidth - kMargin)
      .raw("\"/>\n");
  out_.raw("<text x=\"").number(kMargin).raw("\" y=\"").number(y_ + 22).raw("\"><tspan class=\"n\">");
  Label name;
  name.name(row != nullptr ? row->info.name : "?");
  out_.xml(name).raw("</tspan><tspan class=\"g\" dx=\"10\">");
  Label about;
  about.text("heap ").number(id).text(row != nullptr && row->info.style == Style::exact ? ", exact"
                                                                                        : ", binned");
  out_.xml(about).raw("</tspan></text>\n");
  if (row != nullptr && row->known) {
    const HeapStats& s = row->stats;
    Label stats;
    stats.text("held ")
        .bytes(s.used_bytes)
        .text(" (peak ")
        .bytes(s.peak_bytes)
        .text(") · cached ")
        .bytes(s.cached_bytes);
    stats.text(" · free in slabs ").bytes(s.slab_free_bytes).text(" · free ").bytes(s.free_bytes);
    stats.text(" (largest ").bytes(s.largest_free).text(") · fragmentation ");
    stats.percent(static_cast<std::uint64_t>(s.fragmentation * 1e6), 1000000);
    text(kWidth - kMargin, y_ + 22, "g e", stats);
  }
  y_ += kHeapHeading;
}

void Svg::legend_row(bool draw, std::string_view heading) noexcept {
  if (legend_x_ > 0) y_ += 18;
  if (draw) text(kMargin, y_ + 9, "g", heading);
  legend_x_ = kMargin + 110;
}

void Svg::legend_item(bool draw, std::string_view swatch, const Label& label) noexcept {
  const std::uint32_t width = 16 + text_width(label.columns()) + 14;
  if (legend_x_ + width > kWidth - kMargin) {
    y_ += 18;
    legend_x_ = kMargin + 110;
  }
  if (draw) {
    out_.raw("<g class=\"c\">");
    rect(legend_x_, y_, 10, 10, swatch);
    out_.raw("</g>");
    text(legend_x_ + 16, y_ + 9, "", label);
  }
  legend_x_ += width;
}

void Svg::legend(bool draw) noexcept {
  legend_x_ = 0;
  const auto item = [&](std::string_view swatch, std::string_view s) {
    Label label;
    legend_item(draw, swatch, label.text(s));
  };
  const auto kinds = [&](std::uint32_t from, std::uint32_t to) {
    bool any = false;
    for (std::uint32_t kind = from; kind < to; ++kind) {
      if (model_.bytes[kind] == 0) continue;
      Label swatch, label;
      swatch.text("k").number(kind).text(kind == kFree ? " o" : "");
      describe_kind(model_, kind, 28, false, label);
      legend_item(draw, swatch.view(), label.text(" ").bytes(model_.bytes[kind]));
      any = true;
    }
    if (!any && draw) text(legend_x_, y_ + 9, "g", "nothing");
  };
  legend_row(draw, "held by");
  kinds(0, kUsedKinds);
  legend_row(draw, "not held");
  kinds(kUsedKinds, kKinds);
  legend_row(draw, "lane above");
  item("f", "size of the objects in slabs:");
  legend_x_ -= 20;
  for (std::uint32_t i = 0; i < kClassColors.size(); ++i) {
    Label swatch;
    swatch.text("s").number(i);
    item(swatch.view(), kClassNames[i]);
  }
  legend_row(draw, "lane below");
  item("i0", "a run of IOVAs");
  item("i1", "the next run");
  item("i2", "several runs");
  item("f", "dotted: no IOVA known");
  legend_row(draw, "frame");
  item("o", "own memory");
  item("x", "external memory, lent by the program");
  y_ += 24;
}

void Svg::head(const HeapMapOptions& options) noexcept {
  Label title;
  if (options.title.empty()) {
    title.text("extmem heap map");
  } else {
    title.name(options.title, 64);
  }
  // The height is known once everything was placed; the legend is the only part that has to be tried.
  y_ = 96;
  legend(false);
  std::uint32_t height = y_ + (model_.regions_left_out > 0 ? 30 : 10);
  for (std::uint32_t i = 0; i < model_.plot_count; ++i) {
    std::uint32_t rows[Plot::kZones];
    height += place_zones(model_.plots[i], rows) * kZoneRow + kRegionHeight + kRegionGap;
    if (i == 0 || model_.plots[i].info.heap_id != model_.plots[i - 1].info.heap_id)
      height += kHeapHeading + 6;
  }
  out_.raw(
      "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 ");
  out_.number(kWidth)
      .raw(" ")
      .number(height)
      .raw("\" width=\"")
      .number(kWidth)
      .raw("\" height=\"")
      .number(height);
  out_.raw("\" role=\"img\">\n<title>").xml(title).raw("</title>\n<style>").raw(kStyle);
  for (std::uint32_t i = 0; i < kKinds; ++i) out_.raw(".k").number(i).raw("{fill:").raw(kColors[i]).raw("}");
  for (std::uint32_t i = 0; i < kClassColors.size(); ++i)
    out_.raw(".s").number(i).raw("{fill:").raw(kClassColors[i]).raw("}");
  out_.raw(
      "</style>\n<defs><pattern id=\"many\" width=\"3\" height=\"3\" patternUnits=\"userSpaceOnUse\">"
      "<path d=\"M0 0h1.5v3h-1.5z\" fill=\"#2f6f9f\"/><path d=\"M1.5 0h1.5v3h-1.5z\" fill=\"#8fbbd9\"/>"
      "</pattern></defs>\n<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n");
  text(kMargin, 42, "t", title);
  Label about;
  const std::uint64_t all = all_bytes(model_.bytes);
  count_of(about, model_.plot_count, "region");
  about.text(" in ");
  count_of(about, model_.heap_count, "heap");
  about.text(", ").bytes(all).text(", ").percent(held_bytes(model_.bytes), all).text(" held, metadata ");
  text(kMargin, 62, "g", about.bytes(model_.metadata_bytes));
  out_.raw("<g class=\"c\">");
  std::uint32_t x = kMargin;
  std::uint64_t passed = 0;
  for (std::uint32_t kind = 0; kind < kKinds; ++kind) {
    passed += model_.bytes[kind];
    const double share = all > 0 ? static_cast<double>(passed) / static_cast<double>(all) : 0;
    const std::uint32_t end = kMargin + static_cast<std::uint32_t>(share * (kWidth - 2 * kMargin) + 0.5);
    Label css;
    if (end > x) rect(x, 72, end - x, 8, css.text("k").number(kind).view());
    x = end;
  }
  out_.raw("</g>\n");
  y_ = 96;
  legend(true);
}

void Svg::document(const HeapMapOptions& options) noexcept {
  head(options);
  std::uint32_t row = 0;
  for (std::uint32_t i = 0; i < model_.plot_count && !out_.stopped(); ++i) {
    const std::uint32_t id = model_.plots[i].info.heap_id;
    if (i == 0 || id != model_.plots[i - 1].info.heap_id) {
      while (row < model_.heap_count && model_.heaps[row].info.id < id) ++row;
      heap(row < model_.heap_count && model_.heaps[row].info.id == id ? &model_.heaps[row] : nullptr, id);
    }
    region(model_.plots[i]);
  }
  if (model_.regions_left_out > 0) {
    Label more;
    more.text("and ");
    count_of(more, model_.regions_left_out, "smaller region");
    more.text(" not drawn: ").bytes(model_.bytes_left_out).text(", free ").bytes(model_.free_left_out);
    text(kMargin, y_ + 10, "g", more);
  }
  out_.raw("</svg>\n");
}

}  // namespace svg

Layout svg_layout(const Model& model) noexcept {
  const std::uint32_t unit = model.plot_count <= 12 ? 1 : model.plot_count <= 24 ? 2 : 4;
  return {svg::kMaxBar, 160, unit};
}

void render_svg(const Model& model, const HeapMapOptions& options, Writer& out) noexcept {
  svg::Svg(model, out).document(options);
}

}  // namespace extmem::heap::map
