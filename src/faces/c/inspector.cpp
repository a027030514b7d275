// Inspectors.
#include "extmem/inspect.hpp"

#include <algorithm>
#include <new>
#include <utility>

#include "extmem/extmem_inspect.h"
#include "faces/c/convert.hpp"
#include "faces/c/handles.hpp"

using namespace extmem::faces::c;

struct extmem_inspector {
  extmem::Inspector inspector;
};

#define EXTMEM_C_REQUIRE_INSPECTOR(inspector) \
  EXTMEM_C_REQUIRE((inspector) != nullptr, "inspector is NULL; pass what extmem_inspector_open gave")

namespace {

/// Walks with a C visitor: `walk` is called with a visitor of the core's.
template <typename Info, typename Visit, typename Walk>
int walk_with(Visit visit, void* arg, Walk&& walk) noexcept {
  EXTMEM_C_REQUIRE_VISITOR(visit);
  int stopped = 0;
  EXTMEM_C_TRY(to_errno(walk([&](const Info& info) {
    const auto converted = to_c(info);
    stopped = visit(&converted, arg);
    return stopped == 0;
  })));
  return stopped;
}

auto reporter(extmem_breach_fn report, void* arg) noexcept {
  return [report, arg](const extmem::Breach& breach) {
    if (report == nullptr) return;
    const extmem_breach_t converted = to_c(breach);
    report(&converted, arg);
  };
}

}  // namespace

int extmem_inspector_open(const char* name, const char* directory, extmem_inspector_t** inspector) {
  EXTMEM_C_REQUIRE_NAME(name);
  EXTMEM_C_REQUIRE_OUT(inspector);
  auto opened = extmem::Inspector::open(name, directory);
  if (!opened) return fail(opened.error());
  auto* const handle = new (std::nothrow) extmem_inspector{std::move(*opened)};
  if (handle == nullptr) return fail(ENOMEM, "no memory for the inspector's handle");
  *inspector = handle;
  return 0;
}

int extmem_inspector_close(extmem_inspector_t* inspector) {
  EXTMEM_C_REQUIRE_INSPECTOR(inspector);
  delete inspector;
  return 0;
}

int extmem_inspector_refresh(extmem_inspector_t* inspector) {
  EXTMEM_C_REQUIRE_INSPECTOR(inspector);
  return to_errno(inspector->inspector.refresh());
}

int extmem_inspector_walk_heaps(extmem_inspector_t* inspector, extmem_heap_visit_fn visit, void* arg) {
  EXTMEM_C_REQUIRE_INSPECTOR(inspector);
  return walk_with<extmem::HeapInfo>(visit, arg,
                                     [&](auto each) { return inspector->inspector.walk_heaps(each); });
}

int extmem_inspector_walk_regions(extmem_inspector_t* inspector, extmem_region_visit_fn visit, void* arg) {
  EXTMEM_C_REQUIRE_INSPECTOR(inspector);
  return walk_with<extmem::RegionInfo>(visit, arg,
                                       [&](auto each) { return inspector->inspector.walk_regions(each); });
}

int extmem_inspector_walk_participants(extmem_inspector_t* inspector, extmem_participant_visit_fn visit,
                                       void* arg) {
  EXTMEM_C_REQUIRE_INSPECTOR(inspector);
  return walk_with<extmem::ParticipantInfo>(
      visit, arg, [&](auto each) { return inspector->inspector.walk_participants(each); });
}

int extmem_inspector_walk_memzones(extmem_inspector_t* inspector, extmem_memzone_visit_fn visit, void* arg) {
  EXTMEM_C_REQUIRE_INSPECTOR(inspector);
  return walk_with<extmem::MemzoneInfo>(visit, arg,
                                        [&](auto each) { return inspector->inspector.walk_memzones(each); });
}

int extmem_inspector_walk_iova_runs(extmem_inspector_t* inspector, extmem_region_id_t region,
                                    extmem_iova_run_visit_fn visit, void* arg) {
  EXTMEM_C_REQUIRE_INSPECTOR(inspector);
  return walk_with<extmem::IovaRun>(
      visit, arg, [&](auto each) { return inspector->inspector.walk_iova_runs(from_c(region), each); });
}

int extmem_inspector_walk_tags(extmem_inspector_t* inspector, extmem_tag_visit_fn visit, void* arg) {
  EXTMEM_C_REQUIRE_INSPECTOR(inspector);
  EXTMEM_C_REQUIRE_VISITOR(visit);
  int stopped = 0;
  EXTMEM_C_TRY(to_errno(inspector->inspector.walk_tags([&](extmem::Tag tag, const char* name) {
    stopped = visit(tag.index, name, arg);
    return stopped == 0;
  })));
  return stopped;
}

int extmem_inspector_get_stats(extmem_inspector_t* inspector, uint32_t heap_id, extmem_heap_stats_t* stats,
                               size_t stats_size, bool* stable) {
  EXTMEM_C_REQUIRE_INSPECTOR(inspector);
  EXTMEM_C_TRY(require_report(stats, stats_size));
  const auto taken = inspector->inspector.stats(heap_id, stable);
  if (!taken) return fail(taken.error());
  store(to_c(*taken), stats, stats_size);
  return 0;
}

int extmem_inspector_get_tag_stats(extmem_inspector_t* inspector, uint32_t heap_id, extmem_tag_stats_t* stats,
                                   size_t capacity, size_t* count, bool* stable) {
  EXTMEM_C_REQUIRE_INSPECTOR(inspector);
  EXTMEM_C_REQUIRE_OUT(count);
  EXTMEM_C_REQUIRE(stats != nullptr || capacity == 0, "stats is NULL; pass an array of `capacity` structs");
  const auto room = for_core<extmem::TagStats>(stats, capacity);
  const auto taken = inspector->inspector.tag_stats(heap_id, room, stable);
  if (!taken) return fail(taken.error());
  convert_in_place<extmem_tag_stats_t>(room.first(std::min(*taken, capacity)));
  *count = *taken;
  return 0;
}

int extmem_inspector_get_holders(extmem_inspector_t* inspector, uint32_t heap_id,
                                 extmem_holder_report_t* holders, size_t holders_size, bool* stable) {
  EXTMEM_C_REQUIRE_INSPECTOR(inspector);
  EXTMEM_C_TRY(require_report(holders, holders_size));
  extmem::HolderReport report;
  const auto taken = inspector->inspector.holders(heap_id, report, stable);
  if (!taken) return fail(taken.error());
  store(to_c(report), holders, holders_size);
  return 0;
}

int extmem_inspector_walk_heap(extmem_inspector_t* inspector, uint32_t heap_id,
                               const extmem_walk_options_t* options, extmem_walk_visit_fn visit, void* arg,
                               bool* stable) {
  EXTMEM_C_REQUIRE_INSPECTOR(inspector);
  extmem::WalkOptions converted;
  EXTMEM_C_TRY(convert(options, converted));
  return walk_with<extmem::WalkEntry>(
      visit, arg, [&](auto each) { return inspector->inspector.walk(heap_id, each, converted, stable); });
}

int extmem_inspector_verify(extmem_inspector_t* inspector, extmem_breach_fn report, void* arg,
                            size_t* breaches, size_t* unstable) {
  EXTMEM_C_REQUIRE_INSPECTOR(inspector);
  EXTMEM_C_REQUIRE_OUT(breaches);
  const auto found = inspector->inspector.verify(reporter(report, arg), unstable);
  if (!found) return fail(found.error());
  *breaches = *found;
  return 0;
}

int extmem_inspector_verify_heap(extmem_inspector_t* inspector, uint32_t heap_id, extmem_breach_fn report,
                                 void* arg, size_t* breaches) {
  EXTMEM_C_REQUIRE_INSPECTOR(inspector);
  EXTMEM_C_REQUIRE_OUT(breaches);
  const auto found = inspector->inspector.verify_heap(heap_id, reporter(report, arg));
  if (!found) return fail(found.error());
  *breaches = *found;
  return 0;
}

int extmem_inspector_get_metadata_bytes(extmem_inspector_t* inspector, uint64_t* bytes) {
  EXTMEM_C_REQUIRE_INSPECTOR(inspector);
  EXTMEM_C_REQUIRE_OUT(bytes);
  *bytes = inspector->inspector.metadata_resident_bytes();
  return 0;
}
