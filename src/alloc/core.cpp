#include "alloc/core.hpp"
#include "alloc/heap_guard.hpp"

#include "base/crash_point.hpp"

namespace extmem::alloc {

CoreTables CoreTables::place(shared::SegmentLayout& layout, const shared::Geometry& g) noexcept {
  CoreTables t{};
  t.roots = layout.place(sizeof(CoreRoots), 1);
  t.heaps = layout.place(sizeof(HeapCore), g.max_heaps);
  t.regions = layout.place(sizeof(RegionCore), g.max_regions + 1, 4096);
  t.tag_records = layout.place(sizeof(TagRecord), std::uint64_t{g.max_tags} * 4 + 1024);
  t.slots = layout.place(sizeof(shared::ThreadSlot), g.max_threads + 1, 4096);
  t.cache_rows = layout.place(sizeof(std::uint32_t), std::uint64_t{g.max_threads + 1} * g.max_heaps, 4096);
  t.caches = layout.place(sizeof(ThreadCache), g.max_caches, 4096);
  t.slabs = layout.place(sizeof(Slab), std::uint64_t{g.max_slabs} + 1, 4096);
  t.small_descs = layout.place(sizeof(PageDesc), g.small_bytes >> kSmallPageShift, 4096);
  t.small_area = layout.place(1, g.small_bytes, 65536);
  t.large_descs = layout.place(sizeof(PageDesc), g.large_bytes >> kLargePageShift, 4096);
  t.large_area = layout.place(1, g.large_bytes, 65536);
  return t;
}

void Core::bind(std::byte* segment, const CoreTables& t, const shared::Geometry& geometry,
                const shared::Peers& peers, bool has_membarrier,
                const base::Relaxed<std::uintptr_t>* bases) noexcept {
  segment_ = segment;
  bases_ = bases;
  tables_ = t;
  geometry_ = geometry;
  peers_ = peers;
  has_membarrier_ = has_membarrier;
  heaps_ = reinterpret_cast<HeapCore*>(segment + t.heaps);
  regions_ = reinterpret_cast<RegionCore*>(segment + t.regions);
  slabs_ = reinterpret_cast<Slab*>(segment + t.slabs) + 1;
  states_ = reinterpret_cast<std::atomic<std::uint16_t>*>(segment + t.small_area);
  caches_ = reinterpret_cast<ThreadCache*>(segment + t.caches);
  cache_rows_ = reinterpret_cast<base::Relaxed<std::uint32_t>*>(segment + t.cache_rows);
  slots_ = reinterpret_cast<shared::ThreadSlot*>(segment + t.slots);
  tags_ = reinterpret_cast<TagRecord*>(segment + t.tag_records);
  roots_ = reinterpret_cast<CoreRoots*>(segment + t.roots);
}

void Core::format() noexcept {
  const auto space = [&](MetaSpace& meta, std::uint64_t descs, std::uint64_t area, std::uint64_t bytes,
                         unsigned shift) {
    meta.area_offset = area;
    meta.pages.descs_offset = descs;
    meta.pages.page_shift = shift;
    meta.pages.pages = static_cast<std::uint32_t>(bytes >> shift);
    PageAllocator(segment_, meta.pages).init();
  };
  space(roots_->small, tables_.small_descs, tables_.small_area, geometry_.small_bytes, kSmallPageShift);
  space(roots_->large, tables_.large_descs, tables_.large_area, geometry_.large_bytes, kLargePageShift);
  roots_->slab_list.capacity = geometry_.max_slabs;
  roots_->cache_list.capacity = geometry_.max_caches;
  roots_->tag_list.capacity = geometry_.max_tags * 4 + 1024;
}

bool Core::ensure_format(shared::Ground ground) const noexcept {
  const auto ends = [&](std::uint64_t descs, std::uint64_t count) {
    return ground.ensure(segment_ + descs, sizeof(PageDesc)) &&
           ground.ensure(segment_ + descs + (count - 1) * sizeof(PageDesc), sizeof(PageDesc));
  };
  return ground.ensure_object(*roots_) && ground.ensure(segment_ + tables_.slabs, sizeof(Slab)) &&
         ends(tables_.small_descs, geometry_.small_bytes >> kSmallPageShift) &&
         ends(tables_.large_descs, geometry_.large_bytes >> 16);
}

std::uint32_t Core::slab_pages(const Slab& slab) const noexcept {
  const unsigned shift = regions_[slab.region()].pages.page_shift;
  const std::uint64_t begin = slab.offset() >> shift;
  const std::uint64_t end = slab.offset() + std::uint64_t{slab.objects} * slab.size();
  const std::uint64_t pages = (end + (std::uint64_t{1} << shift) - 1) >> shift;
  return static_cast<std::uint32_t>(pages - begin);
}

bool Core::slab_covers(std::uint32_t index, std::uint32_t region, std::uint32_t page) const noexcept {
  if (index >= geometry_.max_slabs) return false;
  const Slab& s = slabs_[index];
  if (s.objects == 0 || s.region() != region) return false;
  const std::uint64_t first = s.offset() >> regions_[region].pages.page_shift;
  return page >= first && page - first < slab_pages(s);
}

Core::SlabCount Core::count_slab(const Slab& s) const noexcept {
  SlabCount count;
  for (std::uint32_t i = 0; i < s.objects; ++i) {
    const std::uint16_t state = states_[s.first_state + i].load(std::memory_order_relaxed);
    if (state == kFree) {
      ++count.free;
    } else if (is_held(state)) {
      ++count.held;
    } else {
      ++count.cached;
    }
  }
  return count;
}

// ---- regions of a heap -------------------------------------------------------------------------------------

Result<void> Core::attach_region(std::uint32_t slot, std::uint32_t region, base::Relaxed<std::uint32_t>* also,
                                 std::uint32_t value) noexcept {
  RegionCore& r = regions_[region];
  HeapCore& h = heaps_[r.heap];
  const HeapGuard guard(*this, slot, r.heap);
  if (!guard.held())
    return guard.refused(EXTMEM_ERROR(EDEADLK, "a region cannot be added inside a walk over its heap"));
  PageAllocator allocator = pages(region);
  // The slab map whole: every free reads it, of whatever address.
  if (!ground_.ensure_object(allocator.desc(0)) ||
      !ground_.ensure_object(allocator.desc(r.pages.pages - 1)) ||
      !ground_.ensure(slab_map(r),
                      slab_map_words(r.pages.pages, r.pages.page_shift) * sizeof(std::uint32_t))) {
    return EXTMEM_ERROR(ENOSPC,
                        "the tmpfs of the runtime directory is full: remove files, or mount it larger");
  }
  allocator.init();
  // Appended: regions serve in the order of their adding.
  const std::uint32_t last = h.last_region;
  r.rank = last == 0 ? 1 : regions_[last].rank + 1;
  auto tx = transaction(slot);
  tx.set(r.next, 0);
  tx.set(r.before, last);
  tx.set(last == 0 ? h.first_region : regions_[last].next, region);
  tx.set(h.last_region, region);
  tx.add(h.regions, 1);
  if ((r.flags & kRegionSlabs) != 0) tx.add(h.slab_regions, 1);
  tx.set(r.flags, r.flags | kRegionAttached);
  tx.set(r.changing, 0);
  if (also != nullptr) tx.set(*also, value);
  tx.commit();
  return {};
}

void Core::detach_region_locked(std::uint32_t region) noexcept {
  RegionCore& r = regions_[region];
  HeapCore& h = heaps_[r.heap];
  if (h.full_to == region) h.full_to = 0;
  auto tx = transaction(h.lock.holder());
  const std::uint32_t before = r.before;
  const std::uint32_t next = r.next;
  tx.set(before == 0 ? h.first_region : regions_[before].next, next);
  tx.set(next == 0 ? h.last_region : regions_[next].before, before);
  tx.add(h.regions, ~std::uint32_t{0});
  if ((r.flags & kRegionSlabs) != 0) tx.add(h.slab_regions, ~std::uint32_t{0});
  tx.set(r.flags, r.flags & ~kRegionAttached);
  tx.set(r.next, 0);
  tx.commit();
}

Result<void> Core::set_draining_locked(std::uint32_t slot, std::uint32_t region, bool draining) noexcept {
  RegionCore& r = regions_[region];
  HeapCore& h = heaps_[r.heap];
  if (((r.flags & kRegionDraining) != 0) == draining) return {};
  // One pause for both steps: between them nobody may cache an object of the region again.
  EXTMEM_TRY_VOID(pause_all(slot, h));
  if (draining) {
    r.flags = r.flags | kRegionDraining;
    base::crash_point("drain.marked");
    flush_paused(slot, r.heap, false);
  }
  // Slabs of the region leave the lists (or return), nobody's: from now on a free takes the heap's lock.
  for (std::uint32_t cls = 0; cls < kClasses; ++cls) {
    for (std::uint32_t link = h.all_slabs[cls]; link != 0; link = slabs_[link - 1].all_next) {
      Slab& s = slabs_[link - 1];
      if (s.region() != region) continue;
      if (s.flags & kSlabListed) unlink_listed(link - 1);
      s.abandon();
      s.flags = draining ? kSlabDraining : std::uint16_t{0};
      if (!draining && s.free != 0) link_listed(link - 1);
    }
  }
  base::crash_point("drain.relisted");
  resume_all(slot, h);
  if (!draining) r.flags = r.flags & ~kRegionDraining;
  return {};
}

}  // namespace extmem::alloc
