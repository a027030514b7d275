// Looking into heaps: statistics, tags, walks, verify, the heap map.
#include "extmem/extmem.h"
#include "extmem/heap_map.hpp"
#include "faces/c/convert.hpp"
#include "faces/c/handles.hpp"

using namespace extmem::faces::c;

int extmem_heap_get_stats(extmem_heap_t heap, extmem_heap_stats_t* stats, size_t stats_size) {
  EXTMEM_C_REQUIRE_HEAP(heap);
  EXTMEM_C_TRY(require_report(stats, stats_size));
  const auto taken = from_c(heap).stats();
  if (!taken) return fail(taken.error());
  store(to_c(*taken), stats, stats_size);
  return 0;
}

int extmem_heap_get_tag_stats(extmem_heap_t heap, extmem_tag_stats_t* stats, size_t capacity, size_t* count) {
  EXTMEM_C_REQUIRE_HEAP(heap);
  EXTMEM_C_REQUIRE_OUT(count);
  EXTMEM_C_REQUIRE(stats != nullptr || capacity == 0, "stats is NULL; pass an array of `capacity` structs");
  const auto room = for_core<extmem::TagStats>(stats, capacity);
  const auto taken = from_c(heap).tag_stats(room);
  if (!taken) return fail(taken.error());
  convert_in_place<extmem_tag_stats_t>(room.first(std::min(*taken, capacity)));
  *count = *taken;
  return 0;
}

int extmem_heap_get_holders(extmem_heap_t heap, extmem_holder_report_t* holders, size_t holders_size) {
  EXTMEM_C_REQUIRE_HEAP(heap);
  EXTMEM_C_TRY(require_report(holders, holders_size));
  extmem::HolderReport report;
  const auto taken = from_c(heap).holders(report);
  if (!taken) return fail(taken.error());
  store(to_c(report), holders, holders_size);
  return 0;
}

int extmem_heap_walk(extmem_heap_t heap, const extmem_walk_options_t* options, extmem_walk_visit_fn visit,
                     void* arg) {
  EXTMEM_C_REQUIRE_HEAP(heap);
  EXTMEM_C_REQUIRE_VISITOR(visit);
  extmem::WalkOptions converted;
  EXTMEM_C_TRY(convert(options, converted));
  int stopped = 0;
  const auto visit_one = [&](const extmem::WalkEntry& entry) {
    const extmem_walk_entry_t entry_for_c = to_c(entry);
    stopped = visit(&entry_for_c, arg);
    return stopped == 0;
  };
  EXTMEM_C_TRY(to_errno(from_c(heap).walk(visit_one, converted)));
  return stopped;
}

int extmem_heap_verify(extmem_heap_t heap, extmem_breach_fn report, void* arg, size_t* breaches) {
  EXTMEM_C_REQUIRE_HEAP(heap);
  EXTMEM_C_REQUIRE_OUT(breaches);
  const auto found = from_c(heap).verify([report, arg](const extmem::Breach& breach) {
    if (report == nullptr) return;
    const extmem_breach_t converted = to_c(breach);
    report(&converted, arg);
  });
  if (!found) return fail(found.error());
  *breaches = *found;
  return 0;
}

int extmem_heap_flush(extmem_heap_t heap) {
  EXTMEM_C_REQUIRE_HEAP(heap);
  return to_errno(from_c(heap).flush());
}

int extmem_domain_write_map(extmem_domain_t* domain, const extmem_map_options_t* options,
                            extmem_write_fn write, void* arg) {
  EXTMEM_C_REQUIRE_DOMAIN(domain);
  EXTMEM_C_REQUIRE(write != nullptr, "write is NULL; pass the function that takes the map");
  extmem::HeapMapOptions converted;
  EXTMEM_C_TRY(convert(options, converted));
  int stopped = 0;
  const auto write_chunk = [&](std::string_view chunk) {
    stopped = write(chunk.data(), chunk.size(), arg);
    return stopped == 0;
  };
  const auto written = extmem::write_heap_map(domain->domain, write_chunk, converted);
  return stopped != 0 ? stopped : to_errno(written);
}
