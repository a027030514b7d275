// Walks over regions, spans, slabs, objects and memzones, in address order inside each region.
#include "alloc/heap_guard.hpp"
#include "base/error.hpp"
#include "heap/domain_state.hpp"
#include "heap/paused_heap.hpp"
#include "region/iova_table.hpp"

namespace extmem::heap {

namespace {
Error damaged() noexcept { return EXTMEM_ERROR(EUCLEAN, "the heap's metadata is damaged: run verify"); }
}  // namespace

RegionInfo DomainState::make_region_info(std::uint32_t region, bool) noexcept {
  alloc::RegionCore& core = core_.region(region);
  const RegionLocal& local = locals_[region];
  RegionInfo info;
  info.id = RegionId{region, core.generation};
  info.heap_id = core.heap;
  info.base = reinterpret_cast<void*>(bases_[region].get());
  info.length = core.length;
  info.os_page_size = std::uint64_t{1} << core.os_page_shift;
  info.page_size = std::uint64_t{1} << core.pages.page_shift;
  info.kind = local.kind;
  info.external = (core.flags & alloc::kRegionExternal) != 0;
  info.cpu_accessible = (core.flags & alloc::kRegionCpu) != 0;
  info.draining = (core.flags & alloc::kRegionDraining) != 0;
  info.grown = (core.flags & alloc::kRegionGrown) != 0;
  info.numa_node = core.node;
  info.fd = local.kind == BackingKind::external ? -1 : local.mapping.fd;
  info.iova_runs = region::run_count(core.iova);
  info.iova_table_bytes = core.iova.data_bytes;
  info.adder_base = reinterpret_cast<void*>(core.phase.get());
  if (auto slot = thread_slot(); slot) {
    // Under the heap's lock, unless this thread has it: then the walk's caller sees the same instant.
    const alloc::HeapGuard guard(core_, *slot, core.heap);
    if (guard.held()) (void)core_.flush_spans_locked(*slot, core.heap);  // else a stopped process keeps some
    info.free_bytes = core.pages.free_pages << core.pages.page_shift;
    info.free_runs = core.pages.free_runs;
    info.largest_free = std::uint64_t{core_.pages(region).largest_free()} << core.pages.page_shift;
  }
  return info;
}

Result<RegionInfo> DomainState::region_info(RegionId id) noexcept {
  EXTMEM_TRY(slot, thread_slot());
  // So that the region does not go meanwhile. Not held: this thread is in a listener or a walk, which keeps it too.
  const OrderedGuard guard(core_, slot, directory_->region_lock, Rank::regions);
  EXTMEM_TRY(region, checked_region(id));
  return make_region_info(region, true);
}

Result<void> DomainState::walk_regions(FunctionRef<bool(const RegionInfo&)> visit) noexcept {
  if (!visit) return EXTMEM_ERROR(EINVAL, "a walk needs a visitor");
  EXTMEM_TRY(slot, thread_slot());
  const OrderedGuard guard(core_, slot, directory_->region_lock, Rank::regions);
  if (!guard.held())
    return guard.refused(
        EXTMEM_ERROR(EDEADLK, "regions cannot be walked inside a listener or another walk over regions"));
  for (std::uint32_t region = 1; region <= regions_high(); ++region) {
    if ((core_.region(region).flags & alloc::kRegionUsed) == 0) continue;
    if (!visit(make_region_info(region, true))) break;
  }
  return {};
}

Result<void> DomainState::walk(HeapLocal& heap, FunctionRef<bool(const WalkEntry&)> visit,
                               const WalkOptions& options) noexcept {
  if (!visit) return EXTMEM_ERROR(EINVAL, "a walk needs a visitor");
  EXTMEM_TRY(slot, thread_slot());
  const OrderedGuard directory(core_, slot, directory_->lock, Rank::directory);
  if (!directory.held())
    return directory.refused(
        EXTMEM_ERROR(EDEADLK, "a heap cannot be walked inside a walk over the directory"));
  alloc::HeapCore& h = core_.heap(heap.id);
  const PausedHeap paused(core_, slot, heap.id);
  if (!paused.held()) return paused.refused();

  WalkEntry entry{};
  const auto held_entry = [&](std::uint16_t holder, WalkKind kind) {
    entry.held = true;
    entry.tag = holder_tag(holder);
    entry.kind = kind;
    entry.name = nullptr;
    if (holder == alloc::kHolderMemzone) {
      entry.kind = WalkKind::memzone;
      entry.name = memzone_name_at(RegionPtr{alloc::make_ptr(entry.region.slot, entry.offset)});
    }
  };
  std::uint32_t left = core_.geometry().max_regions;
  for (std::uint32_t region = h.first_region; region != 0; region = core_.region(region).next) {
    if (region > core_.geometry().max_regions || left-- == 0 || !core_.sound(core_.region(region)))
      return damaged();
    const alloc::RegionCore& r = core_.region(region);
    const std::uintptr_t base = bases_[region];  // 0: not mapped in this process
    const unsigned shift = r.pages.page_shift;
    const auto fresh = [&](WalkKind kind, std::uint64_t offset, std::uint64_t length) {
      entry = WalkEntry{};
      entry.kind = kind;
      entry.heap_id = heap.id;
      entry.region = RegionId{region, r.generation};
      entry.external = (r.flags & alloc::kRegionExternal) != 0;
      entry.offset = offset;
      entry.length = length;
      entry.addr = base == 0 ? nullptr : reinterpret_cast<void*>(base + offset);
    };
    fresh(WalkKind::region, 0, r.length);
    if (!visit(entry)) return {};
    const alloc::PageAllocator pages = core_.pages(region);
    for (std::uint64_t page = 0; page < r.pages.pages;) {
      const alloc::PageDesc& desc = pages.desc(static_cast<std::uint32_t>(page));
      const std::uint64_t offset = page << shift;
      std::uint32_t length = desc.length();
      if (desc.kind() == alloc::PageKind::slab) {
        if (!core_.slab_covers(desc.slab(), region, static_cast<std::uint32_t>(page)) ||
            !core_.sound(core_.slab(desc.slab())))
          return damaged();
        const alloc::Slab& slab = core_.slab(desc.slab());
        length = core_.slab_pages(slab);
        const alloc::Core::SlabCount count = core_.count_slab(slab);
        fresh(WalkKind::slab, offset, std::uint64_t{length} << shift);
        entry.object_size = slab.size();
        entry.object_count = slab.objects;
        entry.held_count = count.held;
        if (!visit(entry)) return {};
        for (std::uint32_t i = 0; options.objects && i < slab.objects; ++i) {
          const std::uint16_t state = core_.state(slab.first_state + i).load(std::memory_order_relaxed);
          fresh(WalkKind::object, slab.offset() + std::uint64_t{i} * slab.size(), slab.size());
          entry.cached = state != alloc::kFree && !alloc::is_held(state);
          if (alloc::is_held(state)) held_entry(alloc::holder_of(state), WalkKind::object);
          if (!visit(entry)) return {};
        }
      } else {
        fresh(WalkKind::free_span, offset, std::uint64_t{length} << shift);
        if (desc.kind() == alloc::PageKind::held_head) held_entry(desc.holder(), WalkKind::held_span);
        if (!visit(entry)) return {};
      }
      if (length == 0) return damaged();
      page += length;
    }
  }
  return {};
}

}  // namespace extmem::heap
