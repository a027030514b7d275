// Making and releasing slabs: each a transaction over the page layer, the metadata space and the heap's lists.
#include <algorithm>

#include "alloc/core.hpp"

namespace extmem::alloc {

void Core::set_slab_map(shared::Transaction& tx, RegionCore& r, std::uint32_t page, std::uint32_t pages,
                        std::uint32_t link) noexcept {
  const std::uint64_t first = std::uint64_t{page} << r.pages.page_shift >> kSlabMapShift;
  const std::uint64_t last = (((std::uint64_t{page} + pages) << r.pages.page_shift) - 1) >> kSlabMapShift;
  for (std::uint64_t unit = first; unit <= last; ++unit) tx.set(slab_map(r)[unit], link);
}

bool Core::new_slab_in_region_locked(shared::Transaction& tx, std::uint32_t heap, std::uint32_t region,
                                     std::uint32_t cls, std::uint64_t bytes, std::uint32_t index,
                                     std::uint32_t keeper, bool biased, bool& metadata_full) noexcept {
  RegionCore& r = regions_[region];
  HeapCore& h = heaps_[heap];
  const std::uint32_t size = kSizeClasses[cls].size;
  const unsigned shift = r.pages.page_shift;
  SpanRequest request;
  request.pages = static_cast<std::uint32_t>((bytes + (std::uint64_t{1} << shift) - 1) >> shift);
  request.bytes = bytes;
  request.align = kSlabAlign;
  request.phase = r.phase;
  if (r.pages.page_shift >= 12) request.align = 1;  // pages of regions are aligned to their own size
  constexpr std::uint64_t kMapUnit = std::uint64_t{1} << kSlabMapShift;
  const bool mapped =
      (std::uint64_t{request.pages} << shift) >= kMapUnit && has_slab_map(r.pages.pages, shift);
  if (mapped) {  // at a boundary of the slab map: counted in offsets
    request.align = kMapUnit;
    request.phase = 0;
  }
  PageAllocator allocator = pages(region);
  if (allocator.largest_free_bound() < request.pages) return false;
  const std::uint32_t page = allocator.allocate(tx, request, 0);
  if (page == kNoPage) return false;
  const std::uint64_t span = std::uint64_t{request.pages} << shift;
  const auto objects = static_cast<std::uint32_t>(std::min<std::uint64_t>(span / size, kMaxSlabObjects));
  // The slab's extent is derived from its objects, so it must not have a whole page of tail.
  const std::uint32_t needed =
      static_cast<std::uint32_t>((std::uint64_t{objects} * size + (std::uint64_t{1} << shift) - 1) >> shift);
  if (needed < request.pages) allocator.shrink(tx, page, request.pages, needed);
  const std::uint64_t states =
      allocate_meta(segment_, roots_->small, tx, std::uint64_t{objects} * 2, ground_);
  const std::uint64_t unit = std::uint64_t{page} << shift >> kSlabMapShift;
  if (states == 0 || !ground_.ensure(&allocator.desc(page), std::uint64_t{needed} * sizeof(PageDesc)) ||
      (mapped &&
       !ground_.ensure(&slab_map(r)[unit], ((span >> kSlabMapShift) + 1) * sizeof(std::uint32_t)))) {
    metadata_full = true;
    return false;
  }
  allocator.make_slab(tx, page, needed, index);
  const auto first_state = static_cast<std::uint32_t>((states - tables_.small_area) / 2);
  for (std::uint32_t i = 0; i < objects; ++i)
    states_[first_state + i].store(kFree, std::memory_order_relaxed);
  Slab& s = slabs_[index];
  s.first = make_ptr(region, std::uint64_t{page} << shift);
  s.reciprocal = reciprocal_of(size);
  s.units = static_cast<std::uint16_t>(size >> 4);
  s.first_state = first_state;
  s.free = static_cast<std::uint16_t>(objects);
  s.keeper = static_cast<std::uint16_t>(keeper);
  s.returned = 0;
  s.lowest = 0;
  s.returned_next = 0;
  s.home = Slab::pack(heap, biased ? keeper : 0);
  s.magazine = ThreadCache::magazine_at(cls);
  s.size_class = static_cast<std::uint16_t>(cls);
  s.flags = 0;
  s.hint = 0;
  if (mapped) set_slab_map(tx, r, page, needed, index + 1);
  tx.set(s.objects, static_cast<std::uint16_t>(objects));
  tx.set(s.all_prev, 0);
  tx.set(s.all_next, h.all_slabs[cls]);
  if (h.all_slabs[cls] != 0) tx.set(slabs_[h.all_slabs[cls] - 1].all_prev, index + 1);
  tx.set(h.all_slabs[cls], index + 1);
  tx.add(h.slab_count, 1);
  return true;
}

std::uint32_t Core::new_slab_locked(std::uint32_t slot, std::uint32_t heap, std::uint32_t cls, bool biased,
                                    bool& metadata_full, bool& any_region) noexcept {
  HeapCore& h = heaps_[heap];
  const std::uint32_t size = kSizeClasses[cls].size;
  any_region = false;
  for (std::uint32_t region = h.first_region; region != 0; region = regions_[region].next) {
    const RegionCore& r = regions_[region];
    // Slabs have at most kMaxSlabPages pages: the undo journal holds a word or two for each.
    if ((r.flags & kRegionSlabs) == 0 || size > std::uint64_t{kMaxSlabPages} << r.pages.page_shift) continue;
    any_region = true;
    if ((r.flags & kRegionDraining) != 0 || !reaches(region)) continue;
    const std::uint64_t most = std::min<std::uint64_t>(std::uint64_t{kMaxSlabPages} << r.pages.page_shift,
                                                       kSizeClasses[cls].slab_bytes);
    std::uint64_t bytes = std::clamp<std::uint64_t>(r.length / 32, size, std::max<std::uint64_t>(most, size));
    bytes = base::align_up(bytes, std::uint64_t{1} << r.pages.page_shift);
    for (;; bytes = std::max<std::uint64_t>(bytes / 2, size)) {
      const shared::LockGuard meta(roots_->small_lock, slot, peers_);
      if (!meta.held()) return shared::IndexList::kNone;
      auto tx = transaction(slot);
      const std::uint32_t index = roots_->slab_list.take(
          tx, [&](std::uint32_t i) -> auto& { return slabs_[i].all_next; });
      if (index == shared::IndexList::kNone || !ground_.ensure_object(slabs_[index])) {
        metadata_full = true;
        return shared::IndexList::kNone;
      }
      if (new_slab_in_region_locked(tx, heap, region, cls, bytes, index, slot, biased, metadata_full)) {
        tx.commit();
        note_served(regions_[region]);
        link_listed(index);
        if (ThreadCache* cache = cache_of(slot, heap); cache != nullptr) cache->empty[cls].add(1);
        return index;
      }
      tx.rollback();
      if (metadata_full || bytes <= size || bytes <= std::uint64_t{1} << r.pages.page_shift) break;
    }
    if (metadata_full) break;
  }
  return shared::IndexList::kNone;
}

void Core::release_slab_locked(std::uint32_t slot, std::uint32_t index) noexcept {
  Slab& s = slabs_[index];
  HeapCore& h = heaps_[s.heap()];
  const std::uint32_t cls = s.cls();
  const std::uint32_t pages_of_slab = slab_pages(s);
  RegionCore& r = regions_[s.region()];
  const auto page = static_cast<std::uint32_t>(s.offset() >> r.pages.page_shift);
  const shared::LockGuard meta(roots_->small_lock, slot, peers_);
  if (!meta.held()) {  // a stopped process has it: the slab stays, wholly free, and serves again
    if ((s.flags & (kSlabListed | kSlabDraining)) == 0) link_listed(index);
    return;
  }
  auto tx = transaction(slot);
  PageAllocator allocator = pages(s.region());
  for (std::uint32_t i = page; i < page + pages_of_slab; ++i) tx.set(allocator.desc(i).word0, 0);
  const std::uint64_t unit =
      std::uint64_t{page} << r.pages.page_shift >> slab_map_shift(r.pages.pages, r.pages.page_shift);
  if (slab_map(r)[unit] == index + 1) set_slab_map(tx, r, page, pages_of_slab, 0);
  allocator.free(tx, page, pages_of_slab);
  free_meta(segment_, roots_->small, tx, tables_.small_area + std::uint64_t{s.first_state} * 2);
  const std::uint32_t next = s.all_next;
  const std::uint32_t previous = s.all_prev;
  if (next != 0) tx.set(slabs_[next - 1].all_prev, previous);
  tx.set(previous != 0 ? slabs_[previous - 1].all_next : h.all_slabs[cls], next);
  tx.add(h.slab_count, ~std::uint32_t{0});
  tx.set(s.objects, std::uint16_t{0});
  roots_->slab_list.put(
      tx, index, [&](std::uint32_t i) -> auto& { return slabs_[i].all_next; });
  tx.commit();
  note_emptied(h, r);
}

}  // namespace extmem::alloc
