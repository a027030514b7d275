// `extmem stat`: a heap's figures, its tags, and who holds its memory.
#include <fmt/core.h>

#include <algorithm>
#include <memory>

#include "faces/cli/commands.hpp"
#include "faces/cli/exit_code.hpp"
#include "faces/cli/format.hpp"
#include "faces/cli/look.hpp"
#include "faces/cli/text.hpp"

namespace extmem::cli {
namespace {

constexpr std::size_t kMostTags = 20;

void print_heap(const HeapLook& heap, const Console& console) {
  const HeapStats& s = heap.stats;
  console.heading("heap " + shown(heap.info.name, console.unicode()));
  if (!heap.stable)
    console.item("note", "the heap is being changed: figures are of no one instant", Tone::warn);
  console.item("memory", fmt::format("{} in {}", bytes_text(s.total_bytes), plural(s.regions, "region")));
  console.item("held",
               fmt::format("{} in {} ({}), at most {} so far", bytes_text(s.used_bytes),
                           plural(s.used_count, "object"),
                           share_text(static_cast<double>(s.used_bytes), static_cast<double>(s.total_bytes)),
                           bytes_text(s.peak_bytes)));
  console.item("cached", fmt::format("{} in {} of threads", bytes_text(s.cached_bytes),
                                     plural(s.cached_count, "object")));
  console.item("slabs",
               fmt::format("{}, {} free in them", count_text(s.slabs), bytes_text(s.slab_free_bytes)));
  console.item("free", fmt::format("{} in {}, the longest {}, fragmentation {}", bytes_text(s.free_bytes),
                                   plural(s.free_runs, "run"), bytes_text(s.largest_free),
                                   share_text(s.fragmentation, 1)));
  console.item("memzones", count_text(s.memzones));
  console.item("metadata", bytes_text(s.metadata_bytes));

  std::vector<TagStats> tags = heap.tags;
  std::sort(tags.begin(), tags.end(),
            [](const TagStats& a, const TagStats& b) { return a.live_bytes > b.live_bytes; });
  Table table({"tag", ">held", ">objects", ">most so far", "?>share"});
  for (std::size_t i = 0; i < tags.size() && i < kMostTags; ++i) {
    const TagStats& t = tags[i];
    table.row({t.name[0] == '\0' ? "(untagged)" : shown(t.name, console.unicode()), bytes_text(t.live_bytes),
               count_text(t.live_count), bytes_text(t.peak_bytes),
               share_text(static_cast<double>(t.live_bytes), static_cast<double>(s.used_bytes))});
  }
  if (!table.empty()) {
    console.line();
    table.print(console);
  }
  if (tags.size() > kMostTags)
    console.line(fmt::format("  and {} more tags (--json has all)", tags.size() - kMostTags));

  Table who({">pid", "holder", ">held", ">objects"});
  for (std::size_t i = 0; i < heap.holders.count; ++i) {
    const Holder& h = heap.holders.holders[i];
    who.row({h.pid == 0 ? "-" : std::to_string(h.pid),
             h.memzone          ? "memzones"
             : h.tag[0] == '\0' ? "(untagged)"
                                : shown(h.tag, console.unicode()),
             bytes_text(h.bytes), count_text(h.count)});
  }
  if (!who.empty()) {
    console.line();
    who.print(console);
  }
  if (heap.holders.more != 0) console.line(fmt::format("  and {} more holders", heap.holders.more));
}

int stat(const ShellOptions& shell, const std::string& name, const std::string& heap,
         const Console& console) {
  Inspector inspector = open_inspector(shell, name, console);
  const auto read = [&] {
    const Busy busy(console, "looking at " + shown(name, console.unicode()));
    return look_at(inspector, name, {true, true, false, false});
  };
  DomainLook domain = read();
  if (!heap.empty()) {
    std::erase_if(domain.heaps, [&](const HeapLook& h) { return heap != h.info.name; });
    if (domain.heaps.empty())
      throw Failure(kImpossible, fmt::format("no heap \"{}\" in this domain: `extmem ls DOMAIN` lists them",
                                             shown(heap, console.unicode())));
  }
  if (!shell.json) {
    console.line(console.paint(Tone::bold, "domain " + shown(name, console.unicode())) +
                 fmt::format(", metadata {}", bytes_text(domain.metadata_bytes)));
    for (const HeapLook& h : domain.heaps) print_heap(h, console);
    return kPassed;
  }
  Json json = begin_json("stat");
  json.text("domain", name).integer("metadata_bytes", domain.metadata_bytes).array("heaps");
  for (const HeapLook& h : domain.heaps) {
    json.object().integer("id", h.info.id).text("heap", h.info.name);
    json.text("style", h.info.style == Style::exact ? "exact" : "binned").integer("regions", h.info.regions);
    json.boolean("stable", h.stable);
    add_stats(json, h.stats);
    add_tags(json, h.tags);
    add_holders(json, h.holders);
    json.integer("more_holders", h.holders.more).end();
  }
  print_json(json.end().end());
  return kPassed;
}

}  // namespace

void add_stat_command(CLI::App& app, int& exit_code) {
  CLI::App* command =
      app.add_subcommand("stat", "Show the figures of a domain's heaps, their tags and holders");
  auto domain = std::make_shared<std::string>();
  auto heap = std::make_shared<std::string>();
  command->add_option("domain", *domain, "The domain")->required()->type_name("DOMAIN");
  command->add_option("heap", *heap, "Only this heap")->type_name("HEAP");
  auto shell = add_shell_options(*command);
  set_work(*command, exit_code, shell,
           [=](const Console& console) { return stat(*shell, *domain, *heap, console); });
}

}  // namespace extmem::cli
