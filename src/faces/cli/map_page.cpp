// The heap map as one page: the data as JSON, and the program that draws it (map_page_script.cpp). It loads nothing.
#include <fmt/core.h>

#include "faces/cli/format.hpp"
#include "faces/cli/map_data.hpp"
#include "faces/cli/map_page.hpp"
#include "faces/cli/text.hpp"

namespace extmem::cli {
namespace {

/// A string of JavaScript that may stand in a script element.
std::string quoted(const std::string& text) {
  Json json;
  json.array().text({}, text).end();
  std::string out = json.document();
  out = out.substr(out.find('"'), out.rfind('"') - out.find('"') + 1);
  std::string safe;
  for (const char c : out) {
    if (c == '<' || c == '>' || c == '&') {
      safe += fmt::format("\\u{:04x}", static_cast<unsigned>(c));
    } else {
      safe += c;
    }
  }
  return safe;
}

std::string name_of(const std::string& name) { return quoted(shown(name, true)); }

/// [offset, bytes, kind, held, cached, free, object size, object count, zone, tag, bytes, tag, bytes, ...]
void add_piece(std::string& out, const Piece& p) {
  out += fmt::format("[{},{},{},{},{},{},{},{},{}", p.offset, p.bytes, static_cast<unsigned>(p.kind), p.held,
                     p.cached, p.free, p.object_size, p.object_count, p.zone.empty() ? "0" : name_of(p.zone));
  for (const auto& [tag, bytes] : p.tags) out += fmt::format(",{},{}", tag, bytes);
  out += ']';
}

std::string data_of(const MapData& data) {
  std::string out = fmt::format("{{\"domain\":{},\"metadata\":{},\"tags\":[", name_of(data.look.name),
                                data.look.metadata_bytes);
  const auto comma = [&] {
    if (out.back() != '[' && out.back() != '{') out += ',';
  };
  for (const MapTag& tag : data.tags) {
    comma();
    out += fmt::format("[{},{}]", name_of(tag.name), tag.bytes);
  }
  out += "],\"heaps\":[";
  for (const HeapLook& h : data.look.heaps) {
    comma();
    const HeapStats& s = h.stats;
    out += fmt::format(
        "{{\"id\":{},\"name\":{},\"exact\":{},\"stable\":{},\"total\":{},\"held\":{},\"cached\":{},"
        "\"slabFree\":{},\"free\":{},\"largest\":{},\"peak\":{},\"objects\":{}}}",
        h.info.id, name_of(h.info.name), h.info.style == Style::exact, h.stable, s.total_bytes, s.used_bytes,
        s.cached_bytes, s.slab_free_bytes, s.free_bytes, s.largest_free, s.peak_bytes, s.used_count);
  }
  out += "],\"regions\":[";
  for (const MapRegion& r : data.regions) {
    comma();
    out += fmt::format(
        "{{\"slot\":{},\"heap\":{},\"kind\":{},\"bytes\":{},\"osPage\":{},\"page\":{},\"node\":{},"
        "\"draining\":{},\"runs\":{},\"pieces\":[",
        r.info.id.slot, r.info.heap_id, quoted(preload::backing_word(r.info.kind)), r.info.length,
        r.info.os_page_size, r.info.page_size, r.info.numa_node, r.info.draining, r.iova_runs);
    for (const Piece& p : r.pieces) {
      comma();
      add_piece(out, p);
    }
    out += "],\"iovas\":[";
    for (const IovaRun& run : r.iovas) {
      comma();
      // As text: JavaScript's numbers end at 2^53.
      out += fmt::format("[{},{},{}]", run.offset, run.length,
                         run.iova == kBadIova ? "0" : quoted(hex_text(static_cast<std::uint64_t>(run.iova))));
    }
    out += "]}";
  }
  return out + "]}";
}

}  // namespace

std::string map_page(const MapData& data) {
  return fmt::format(
      "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
      "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; "
      "script-src 'unsafe-inline'\">\n<meta name=\"viewport\" content=\"width=device-width\">\n"
      "<title>extmem map: {0}</title>\n<style>{1}</style>\n</head>\n<body>\n{2}"
      "<script type=\"application/json\" id=\"data\">{3}</script>\n<script>{4}</script>\n</body>\n</html>\n",
      escape_html(shown(data.look.name, true)), map_page_style(), map_page_body(), data_of(data),
      map_page_script());
}

}  // namespace extmem::cli
