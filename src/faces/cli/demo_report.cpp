// The demo's tables.
#include <fmt/core.h>

#include <algorithm>
#include <cstdio>
#include <vector>

#include "faces/cli/demo.hpp"
#include "faces/cli/format.hpp"

namespace extmem::cli {

void Demo::show_regions() {
  console_.heading("Memory");
  std::vector<std::string> headings{"HEAP", ">#",    "FROM",    ">SIZE",     "?>PAGE",
                                    "IOVA", ">RUNS", "?>FIRST", "?>ADDED IN"};
  const bool nodes = machine_.numa_nodes > 1;
  if (nodes) headings.emplace_back("?>NODE");
  Table table(headings);
  for (const DemoRegion& region : regions_) {
    std::vector<std::string> row{region.heap,
                                 std::to_string(region.id.slot),
                                 region.what,
                                 bytes_text(region.length),
                                 bytes_text(region.os_page_size),
                                 region.iova,
                                 count_text(region.iova_runs),
                                 region.iova_runs > 0 ? hex_text(region.first_iova) : "",
                                 time_text(region.added_in)};
    if (nodes) row.push_back(region.numa_node == kAnyNode ? "any" : std::to_string(region.numa_node));
    table.row(row);
  }
  table.print(console_);
}

void Demo::show_memzones() {
  console_.heading("Memzones");
  Table table({"NAME", "HEAP", ">SIZE", ">IOVA", "ASKED FOR"});
  for (std::size_t i = 0; i < memzones_.size(); ++i) {
    const MemzoneInfo& zone = memzones_[i];
    const auto heap = domain_.heap_by_id(zone.heap_id);
    table.row({clean(zone.name), heap ? heap->name() : "?", bytes_text(zone.length),
               zone.iova == kBadIova ? "unknown" : hex_text(static_cast<std::uint64_t>(zone.iova)),
               memzone_asked_[i]});
  }
  table.print(console_);
}

void Demo::show_load() {
  const LoadTotals& t = load_totals_;
  console_.heading("Load");
  const double rate = static_cast<double>(t.operations()) / load_seconds_;
  console_.item("operations",
                fmt::format("{} in {} on {}: {:.2f} million/s, contents written and checked included",
                            count_text(t.operations()), time_text(load_seconds_),
                            plural(options_.threads, "thread"), rate / 1e6));
  console_.item("of these",
                fmt::format("{} allocations ({} aligned, {} zeroed, {} batches of 32), {} frees, {} resizes",
                            count_text(t.allocations), count_text(t.aligned), count_text(t.zeroed),
                            count_text(t.batches), count_text(t.frees), count_text(t.resizes)));
  console_.item("in all",
                fmt::format("{} allocated; {} handed to another thread; {} refused for lack of memory",
                            bytes_text(t.bytes), plural(t.handed_over, "object"), count_text(t.refused)));
  console_.item("meanwhile", fmt::format("region {} was refused removal ({}), then drained and removed",
                                         spare_.slot, removal_report_));
}

void Demo::show_heaps() {
  console_.heading("Heaps");
  Table table({"HEAP", "STYLE", ">SIZE", ">HELD", "?>SHARE", ">OBJECTS", "?>PEAK", "?>CACHED", "?>IN SLABS",
               ">FREE", "?>LARGEST", "?>FRAGM.", "?>METADATA"});
  const auto walked = domain_.walk_heaps([&](const HeapInfo& info) {
    if (info.regions == 0) return true;
    const auto heap = domain_.heap_by_id(info.id);
    const auto stats = heap ? heap->stats() : Result<HeapStats>(heap.error());
    if (!stats) return true;
    const auto total = static_cast<double>(stats->total_bytes);
    table.row(
        {clean(info.name), info.style == Style::exact ? "exact" : "binned", bytes_text(stats->total_bytes),
         bytes_text(stats->used_bytes), share_text(static_cast<double>(stats->used_bytes), total),
         count_text(stats->used_count), bytes_text(stats->peak_bytes), bytes_text(stats->cached_bytes),
         bytes_text(stats->slab_free_bytes), bytes_text(stats->free_bytes), bytes_text(stats->largest_free),
         share_text(stats->fragmentation, 1), share_text(static_cast<double>(stats->metadata_bytes), total)});
    return true;
  });
  if (!walked) check("walk all heaps", false, error_text(walked.error()));
  table.print(console_);
}

void Demo::show_tags() {
  console_.heading("Tags");
  Table table({"HEAP", "TAG", ">LIVE", ">OBJECTS", ">AVERAGE", ">PEAK AT MOST", ">TOO HIGH BY"});
  std::vector<TagStats> tags(4096);
  for (const Heap& heap : {packets_, storage_, control_, device_}) {
    const auto count = heap.tag_stats(tags);
    if (!count) continue;
    const auto end = tags.begin() + static_cast<std::ptrdiff_t>(std::min(*count, tags.size()));
    std::sort(tags.begin(), end,
              [](const TagStats& a, const TagStats& b) { return a.live_bytes > b.live_bytes; });
    for (auto t = tags.begin(); t != end; ++t) {
      if (t->live_count == 0 && (t->tag == Tag{} || t->peak_bytes == 0)) continue;
      table.row({heap.name(), t->name[0] == '\0' ? "(untagged)" : clean(t->name), bytes_text(t->live_bytes),
                 count_text(t->live_count),
                 t->live_count > 0 ? bytes_text(t->live_bytes / t->live_count) : "",
                 bytes_text(t->peak_bytes), bytes_text(t->peak_error)});
    }
  }
  table.print(console_);
}

void Demo::show_timings() {
  console_.heading("Timings");
  Table table({"WHAT", ">TIME", "OF"});
  for (const Timing& timing : timings_) table.row({timing.what, time_text(timing.seconds), timing.note});
  table.print(console_);
}

void Demo::show_map() {
  console_.line();  // and, with --json, drawn to nobody: that it can be drawn is one of the checks
  HeapMapOptions options;
  options.width = console_.width();
  options.colors = console_.colors();
  options.ascii = !console_.unicode();
  const auto drawn = write_heap_map(
      domain_,
      [this](std::string_view chunk) {
        return console_.quiet() || std::fwrite(chunk.data(), 1, chunk.size(), stdout) == chunk.size();
      },
      options);
  check("draw the heap map as text", drawn.ok(), drawn ? "" : error_text(drawn.error()));
}

}  // namespace extmem::cli
