// The heap map as lines of text. Each region takes up to five lines:
//
//   region 3  hugetlb, own, 64 MiB, OS pages 2 MiB, node 0, 61 % held
//   |█████████▅▅▅▃▃▁···········▓▓▓▓····|   how full each column is; with colours, in the colour of the largest tag
//    aaaaaaaaaabbbbb           MMMM        which tag that is (only without colours)
//                              └rx-ring    memzones
//    ━━━━━━━━━━━━━━━━━━━╋━━━━━━━━━━━━━━━   runs of IOVAs: 0x1c0000000
#include <algorithm>
#include <array>
#include <cstring>

#include "heap/heap_map_render.hpp"

namespace extmem::heap::map {
namespace {

constexpr std::array<std::string_view, 9> kLevels{" ", "▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"};
constexpr std::array<std::string_view, 9> kAsciiLevels{" ", "1", "2", "3", "4", "5", "6", "7", "#"};
// xterm's 256 colours, by Kind. Empty: the terminal's own.
constexpr std::array<std::string_view, kKinds> kColors{
    "38;5;73",  "38;5;104", "38;5;168", "38;5;117", "38;5;125", "38;5;71",  "38;5;143",
    "38;5;140", "38;5;246", "38;5;67",  "1",        "38;5;244", "38;5;244", "38;5;240"};
constexpr std::string_view kDim = "2";
constexpr std::string_view kBold = "1";
constexpr std::string_view kIovaColor = "38;5;67";

// A line that never grows longer than the terminal is wide.
class Line {
 public:
  Line(Writer& out, const HeapMapOptions& options) noexcept
      : out_(out),
        width_(std::clamp(options.width, 40u, 250u)),
        colors_(options.colors),
        ascii_(options.ascii) {}

  [[nodiscard]] std::size_t width() const noexcept { return width_; }
  [[nodiscard]] std::size_t room() const noexcept { return width_ - used_; }
  [[nodiscard]] bool ascii() const noexcept { return ascii_; }
  [[nodiscard]] bool colors() const noexcept { return colors_; }

  Line& put(std::string_view s) noexcept {
    std::size_t n = 0;
    for (std::size_t i = 0; i < s.size(); i += n) {
      for (n = 1; i + n < s.size() && (static_cast<unsigned char>(s[i + n]) & 0xc0) == 0x80;) ++n;
      if (used_ == width_) break;
      out_.raw(s.substr(i, n));
      ++used_;
    }
    return *this;
  }
  Line& put(const Label& label) noexcept { return put(label.view()); }
  Line& pad_to(std::size_t column) noexcept {
    while (used_ < std::min<std::size_t>(column, width_)) put(" ");
    return *this;
  }
  /// An item of a list: after a comma, on a new line with this indent where it does not fit any more.
  Line& item(const Label& label, std::size_t indent, std::string_view separator = ", ") noexcept {
    if (!first_ && used_ + count_columns(separator) + label.columns() > width_) {
      const std::string_view style = style_;
      put(separator.substr(0, separator.find_last_not_of(' ') + 1)).end().pad_to(indent).style(style);
    } else if (!first_) {
      put(separator);
    }
    first_ = false;
    return put(label);
  }
  Line& first_item() noexcept {
    first_ = true;
    return *this;
  }
  Line& style(std::string_view code) noexcept {
    if (colors_ && code != style_) {
      if (!style_.empty()) out_.raw("\x1b[0m");
      if (!code.empty()) out_.raw("\x1b[").raw(code).raw("m");
      style_ = code;
    }
    return *this;
  }
  Line& plain() noexcept { return style({}); }
  Line& end() noexcept {
    plain();
    out_.raw("\n");
    used_ = 0;
    return *this;
  }

 private:
  Writer& out_;
  std::size_t width_;
  std::size_t used_ = 0;
  std::string_view style_{};
  bool colors_;
  bool ascii_;
  bool first_ = true;
};

// The letter that stands for a kind where there are no colours.
std::string_view letter_of(std::uint32_t kind) noexcept {
  constexpr std::string_view kLetters = "abcdefgh+uM-- ";
  static_assert(kLetters.size() == kKinds);
  return kLetters.substr(kind, 1);
}

struct Summary {
  std::uint64_t bytes[kKinds];
  std::uint32_t used;   // the largest kind that is held; kUsedKinds when nothing is
  std::uint32_t level;  // eighths
};

Summary summarise(const Model& model, const Plot& plot, std::uint32_t i) noexcept {
  Summary s{};
  model.sum(plot, i, i + 1, s.bytes);
  const std::uint64_t all = all_bytes(s.bytes);
  const std::uint64_t held = held_bytes(s.bytes);
  s.used = most_of(s.bytes, 0, kUsedKinds);
  if (held > 0) {
    const double share = static_cast<double>(held) / static_cast<double>(all);
    s.level = std::clamp(static_cast<std::uint32_t>(share * 8 + 0.5), 1u, 8u);
  }
  return s;
}

void draw_bar(const Model& model, const Plot& plot, Line& line) noexcept {
  const bool ascii = line.ascii();
  line.put("  ").style(kDim).put(plot.info.external ? (ascii ? ":" : "┊") : (ascii ? "|" : "│"));
  for (std::uint32_t i = 0; i < plot.columns; ++i) {
    const Summary s = summarise(model, plot, i);
    if (s.level > 0) {
      const bool zone = s.used == kMemzone && s.level == 8;
      line.style(kColors[s.used]).put(zone ? (ascii ? "M" : "▓") : (ascii ? kAsciiLevels : kLevels)[s.level]);
    } else if (s.bytes[kCached] + s.bytes[kSlabFree] > s.bytes[kFree]) {
      line.style(kColors[kSlabFree]).put(ascii ? "-" : "░");
    } else {
      line.style(kColors[kFree]).put(ascii ? "." : "·");
    }
  }
  line.plain().style(kDim).put(plot.info.external ? (ascii ? ":" : "┊") : (ascii ? "|" : "│"));
  line.end();
  if (line.colors()) return;
  line.put("   ");
  for (std::uint32_t i = 0; i < plot.columns; ++i) {
    const std::uint32_t used = summarise(model, plot, i).used;
    line.put(letter_of(used == kUsedKinds ? std::uint32_t{kFree} : used));
  }
  line.end();
}

void draw_zones(const Plot& plot, Line& line) noexcept {
  if (plot.zone_count == 0) return;
  std::size_t at = 0;
  std::uint64_t shown = 0;
  line.put("   ");
  for (std::uint32_t i = 0; i < plot.zone_count; ++i) {
    const Zone& zone = plot.zones[i];
    const double share = static_cast<double>(zone.offset) / static_cast<double>(plot.info.length);
    const auto column = static_cast<std::size_t>(share * plot.columns);
    Label label;
    label.text(line.ascii() ? "^" : "└").name(zone.name, 24, line.ascii());
    if (column < at || 3 + column + label.columns() + 6 > line.width()) continue;
    line.pad_to(3 + column).put(label);
    at = column + label.columns() + 1;
    ++shown;
  }
  if (plot.zones_seen > shown) {
    Label more;
    more.text(shown > 0 ? "  +" : "").number(plot.zones_seen - shown);
    more.text(shown > 0 ? "" : plot.zones_seen == 1 ? " memzone" : " memzones");
    line.style(kDim).put(more);
  }
  line.end();
}

void draw_iovas(const Model& model, const Plot& plot, Line& line) noexcept {
  const bool ascii = line.ascii();
  Label label;
  describe_iovas(plot, label);
  line.put("   ");
  if (plot.iova_runs > 0) {
    for (std::uint32_t i = 0; i < plot.columns; ++i) {
      const Column& column = model.column(plot, i);
      const std::string_view mark = column.iova_known == 0    ? " "
                                    : column.iova_starts > 1  ? (ascii ? "%" : "▒")
                                    : column.iova_starts == 1 ? (ascii ? "+" : "┝")
                                                              : (ascii ? "=" : "━");
      line.style(column.iova_known == 0 ? std::string_view{} : kIovaColor).put(mark);
    }
    line.plain();
    if (line.room() < label.columns() + 2)
      line.end().put("   ");
    else
      line.put("  ");
  }
  line.style(kDim).put(label).end();
}

void draw_region(const Model& model, const Plot& plot, Line& line) noexcept {
  const RegionInfo& info = plot.info;
  Label label;
  line.first_item().put("  ").style(kBold);
  line.item(label.text("region ").number(info.id.slot), 5);
  line.plain().put("  ").first_item();
  const auto item = [&](auto&& fill) {
    Label each;
    fill(each);
    line.item(each, 5);
  };
  item([&](Label& l) { l.text(backing_name(info.kind)); });
  if (info.kind != BackingKind::external) item([&](Label& l) { l.text(info.external ? "external" : "own"); });
  item([&](Label& l) { l.bytes(info.length); });
  item([&](Label& l) { l.text("OS pages ").bytes(info.os_page_size); });
  if (info.numa_node != kAnyNode)
    item([&](Label& l) { l.text("node ").number(static_cast<unsigned>(info.numa_node)); });
  item([&](Label& l) { l.percent(held_bytes(plot.bytes), info.length).text(" held"); });
  item([&](Label& l) { l.text("largest free ").bytes(info.largest_free); });
  if (info.draining) item([&](Label& l) { l.text("draining"); });
  if (!info.cpu_accessible) item([&](Label& l) { l.text("device memory"); });
  if (plot.widened) item([&](Label& l) { l.text("drawn longer than to scale"); });
  line.end();
  draw_bar(model, plot, line);
  draw_zones(plot, line);
  draw_iovas(model, plot, line);
}

void draw_heap(const HeapRow& row, Line& line) noexcept {
  Label name;
  name.name(row.info.name, 64, line.ascii());
  line.first_item().style(kBold).put("heap ").put(name).plain();
  Label about;
  about.text("  id ").number(row.info.id).text(row.info.style == Style::exact ? ", exact" : ", binned");
  line.put(about);
  if (row.known) {
    const HeapStats& s = row.stats;
    const auto item = [&](std::string_view text, std::uint64_t bytes) {
      Label each;
      line.item(each.text(text).bytes(bytes), 5);
    };
    line.put(": ");
    item("held ", s.used_bytes);
    item("peak ", s.peak_bytes);
    item("cached ", s.cached_bytes);
    item("free in slabs ", s.slab_free_bytes);
    item("free ", s.free_bytes);
    Label percent;
    line.item(
        percent.text("fragmentation ").percent(static_cast<std::uint64_t>(s.fragmentation * 1e6), 1000000),
        5);
  }
  line.end();
}

void draw_legend(const Model& model, Line& line) noexcept {
  line.first_item().style(kDim).put("held by").plain();
  std::size_t shown = 0;
  for (std::uint32_t kind = 0; kind < kUsedKinds; ++kind) {
    if (model.bytes[kind] == 0) continue;
    Label label;
    describe_kind(model, kind, 24, line.ascii(), label);
    label.text(" ").bytes(model.bytes[kind]);
    if (line.room() < label.columns() + 4) line.end().put("       ");
    line.put("  ").style(kColors[kind]);
    line.put(line.colors() ? (kind == kMemzone ? "▓" : "█") : letter_of(kind)).plain().put(" ").put(label);
    ++shown;
  }
  if (shown == 0) line.put("  nobody");
  line.end();
  const auto item = [&](std::string_view unicode, std::string_view ascii) {
    Label each;
    line.item(each.text(line.ascii() ? ascii : unicode), 10, "   ");
  };
  line.style(kDim).put("not held  ").first_item();
  item("· free", ". free");
  item("░ free in slabs, or cached", "- free in slabs, or cached");
  item("frame │ own", "frame | own");
  item("┊ external", ": external");
  item("IOVA ┝ a run begins", "IOVA + a run begins");
  item("▒ several", "% several");
  line.end();
}

}  // namespace

Layout text_layout(const HeapMapOptions& options) noexcept {
  const std::uint32_t width = std::clamp(options.width, 40u, 250u) - 4;
  return {width, std::min(width, 24u), 1};
}

void render_text(const Model& model, const HeapMapOptions& options, Writer& out) noexcept {
  Line line(out, options);
  Label label;
  if (options.title.empty()) {
    label.text("extmem heap map");
  } else {
    label.name(options.title, 64, options.ascii);
  }
  line.style(kBold).put(label).plain();
  const std::uint64_t all = all_bytes(model.bytes);
  Label totals;
  totals.text("  ");
  count_of(totals, model.plot_count, "region");
  totals.text(" in ");
  count_of(totals, model.heap_count, "heap");
  totals.text(", ").bytes(all).text(", ").percent(held_bytes(model.bytes), all).text(" held, metadata ");
  line.put(totals.bytes(model.metadata_bytes)).end();

  std::uint32_t heap = 0;
  for (std::uint32_t i = 0; i < model.plot_count && !out.stopped(); ++i) {
    const Plot& plot = model.plots[i];
    if (i == 0 || plot.info.heap_id != model.plots[i - 1].info.heap_id) {
      line.end();
      while (heap < model.heap_count && model.heaps[heap].info.id != plot.info.heap_id) ++heap;
      if (heap < model.heap_count) draw_heap(model.heaps[heap], line);
    }
    draw_region(model, plot, line);
  }
  line.end();
  if (model.regions_left_out > 0) {
    Label more;
    more.text("and ");
    count_of(more, model.regions_left_out, "smaller region");
    more.text(" not drawn: ").bytes(model.bytes_left_out).text(", free ").bytes(model.free_left_out);
    line.put(more).end();
  }
  draw_legend(model, line);
}

}  // namespace extmem::heap::map
