// `extmem map`: where a domain's memory is, and who holds it: for the terminal, as SVG, as a page for a browser, as JSON.
#include <fmt/core.h>

#include <cerrno>
#include <cstring>
#include <fstream>
#include <memory>

#include "extmem/heap_map.hpp"
#include "faces/cli/commands.hpp"
#include "faces/cli/exit_code.hpp"
#include "faces/cli/format.hpp"
#include "faces/cli/map_data.hpp"
#include "faces/cli/text.hpp"

namespace extmem::cli {
namespace {

struct Options {
  std::string domain;
  std::string heap;
  std::string format;
  std::string output;
};

std::string draw(Inspector& inspector, const Options& o, bool svg, const Console& console) {
  HeapMapOptions options;
  options.format = svg ? HeapMapFormat::svg : HeapMapFormat::text;
  options.width = console.width();
  options.colors = console.colors() && o.output.empty();
  options.ascii = !console.unicode();
  const std::string title = "domain " + o.domain;
  options.title = title;
  std::string out;
  need(write_heap_map(
           inspector,
           [&](std::string_view chunk) {
             out += chunk;
             return true;
           },
           options, o.heap),
       "cannot draw the map");
  return out;
}

std::string document(const MapData& data) {
  Json json = begin_json("map");
  json.text("domain", data.look.name).array("tags");
  for (const MapTag& tag : data.tags) json.object().text("tag", tag.name).integer("bytes", tag.bytes).end();
  json.end().array("heaps");
  for (const HeapLook& h : data.look.heaps) {
    json.object().integer("id", h.info.id).text("heap", h.info.name);
    json.text("style", h.info.style == Style::exact ? "exact" : "binned").boolean("stable", h.stable).end();
  }
  json.end().array("regions");
  for (const MapRegion& r : data.regions) {
    json.object().integer("region", r.info.id.slot).integer("heap_id", r.info.heap_id);
    json.text("kind", preload::backing_word(r.info.kind)).integer("bytes", r.info.length);
    json.integer("os_page_size", r.info.os_page_size).integer("node", r.info.numa_node);
    json.boolean("draining", r.info.draining).integer("iova_runs", r.iova_runs).array("pieces");
    for (const Piece& p : r.pieces) {
      json.object().integer("offset", p.offset).integer("bytes", p.bytes).text("what", piece_text(p.kind));
      json.integer("held", p.held).integer("cached", p.cached).integer("object_size", p.object_size);
      json.integer("object_count", p.object_count).text("zone", p.zone).array("tags");
      for (const auto& [tag, bytes] : p.tags) json.object().integer("tag", tag).integer("bytes", bytes).end();
      json.end().end();
    }
    json.end().array("iovas");
    for (const IovaRun& run : r.iovas) {
      const bool known = run.iova != kBadIova;
      json.object().integer("offset", run.offset).integer("bytes", run.length).boolean("known", known);
      json.integer("iova", known ? static_cast<std::uint64_t>(run.iova) : 0).end();
    }
    json.end().end();
  }
  return json.end().end().document();
}

std::string format_of(const ShellOptions& shell, const Options& o) {
  if (shell.json) {
    if (!o.format.empty() && o.format != "json")
      throw Failure(kUsage, "--json and --format contradict each other");
    return "json";
  }
  if (!o.format.empty()) return o.format;
  for (const char* end : {"svg", "html", "json"}) {
    if (o.output.ends_with(std::string(".") + end)) return end;
  }
  return "text";
}

int map(const ShellOptions& shell, const Options& o, const Console& console) {
  const std::string format = format_of(shell, o);
  std::ofstream file;
  Inspector inspector = open_inspector(shell, o.domain, console);
  std::string out;
  {
    const Busy busy(console, "reading " + shown(o.domain, console.unicode()));
    if (format == "text" || format == "svg") {
      out = draw(inspector, o, format == "svg", console);
    } else {
      const MapData data = read_map(inspector, o.domain, o.heap, console);
      out = format == "html" ? map_page(data) : document(data);
    }
  }
  if (o.output.empty()) {
    fmt::print("{}", out);
    return kPassed;
  }
  errno = 0;
  file.open(o.output, std::ios::binary | std::ios::trunc);
  file << out;
  file.close();
  if (!file)
    throw Failure(kImpossible, fmt::format("cannot write {}: {}", shown(o.output, console.unicode()),
                                           std::strerror(errno == 0 ? EIO : errno)));
  if (!shell.json)
    console.line(fmt::format("{}: {}", shown(o.output, console.unicode()), bytes_text(out.size())));
  return kPassed;
}

}  // namespace

void add_map_command(CLI::App& app, int& exit_code) {
  CLI::App* command = app.add_subcommand("map", "Draw where a domain's memory is and who holds it");
  command->footer(
      "text for the terminal; svg a picture; html a page that needs nothing else, with zoom, details under "
      "the pointer, "
      "tags\nby colour and runs of IOVAs; json the same as data. Without --format the end of FILE's name "
      "decides.");
  auto o = std::make_shared<Options>();
  command->add_option("domain", o->domain, "The domain")->required()->type_name("DOMAIN");
  command->add_option("--heap", o->heap, "Only this heap")->type_name("HEAP");
  command->add_option("--format", o->format, "text, svg, html or json")
      ->check(CLI::IsMember({"text", "svg", "html", "json"}));
  command->add_option("--output,-o", o->output, "Where it goes; default: standard output")->type_name("FILE");
  auto shell = add_shell_options(*command);
  set_work(*command, exit_code, shell, [=](const Console& console) { return map(*shell, *o, console); });
}

}  // namespace extmem::cli
