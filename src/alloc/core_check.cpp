// The invariants of a heap, checked one by one.
#include "alloc/core.hpp"

namespace extmem::alloc {

std::size_t Core::check_heap_locked(
    std::uint32_t heap, FunctionRef<void(const char*, std::uint64_t, std::uint64_t, std::uint64_t)> report,
    Checks checks) noexcept {
  std::size_t breaches = 0;
  const auto breach = [&](const char* what, std::uint64_t where, std::uint64_t expected,
                          std::uint64_t found) {
    ++breaches;
    if (report) report(what, where, expected, found);
  };
  const HeapCore& h = heaps_[heap];

  std::uint64_t regions = 0;
  std::uint64_t slab_regions = 0;
  std::uint64_t span_count = 0;
  std::uint64_t span_bytes = 0;
  std::uint64_t cached_heads = 0;
  std::uint32_t last_region = 0;
  for (std::uint32_t region = h.first_region; region != 0; region = regions_[region].next) {
    if (region > geometry_.max_regions || ++regions > h.regions || regions > geometry_.max_regions) {
      breach("the heap's chain of regions ends", region, h.regions, regions);
      return breaches;
    }
    const RegionCore& r = regions_[region];
    if ((r.flags & kRegionSlabs) != 0) ++slab_regions;
    if (r.heap != heap) breach("a heap's region names the heap", region, heap, r.heap);
    if (r.before != last_region) breach("a region names the one before it", region, last_region, r.before);
    last_region = region;
    if (!sound(r)) {
      breach("a region's page table lies in its area", region, 0, r.pages.descs_offset);
      continue;
    }
    const PageAllocator allocator(segment_, regions_[region].pages);
    const std::size_t bad = allocator.check(
        [&](std::uint32_t slab, std::uint32_t page) {
          if (!slab_covers(slab, region, page) || !sound(slabs_[slab])) return 0u;
          const Slab& s = slabs_[slab];
          return s.offset() >> r.pages.page_shift == page ? slab_pages(s) : 0u;
        },
        [&](const char* what, std::uint64_t where, std::uint64_t expected, std::uint64_t found) {
          breach(what, where, expected, found);
        });
    if (bad != 0) continue;
    std::uint64_t mapped = 0;
    for (std::uint64_t unit = 0; unit < slab_map_words(r.pages.pages, r.pages.page_shift); ++unit) {
      const std::uint32_t link = slab_map(r)[unit];
      if (link == 0) continue;
      ++mapped;
      const auto page = static_cast<std::uint32_t>((unit << kSlabMapShift) >> r.pages.page_shift);
      if (!slab_covers(link - 1, region, page))
        breach("the slab map names the slab that lies there", unit, 0, link);
    }
    std::uint64_t mappable = 0;
    for (std::uint64_t page = 0; page < r.pages.pages;) {
      const PageDesc& desc = allocator.desc(static_cast<std::uint32_t>(page));
      if (desc.kind() == PageKind::slab &&
          slab_map(r)[(page << r.pages.page_shift) >> slab_map_shift(r.pages.pages, r.pages.page_shift)] ==
              desc.slab() + 1) {
        const std::uint64_t bytes = std::uint64_t{slab_pages(slabs_[desc.slab()])} << r.pages.page_shift;
        mappable += (bytes + (std::uint64_t{1} << kSlabMapShift) - 1) >> kSlabMapShift;
      }
      if (desc.kind() == PageKind::held_head || desc.kind() == PageKind::cached_head) {
        ++span_count;  // a cached span is the pages' as little as a held one
        cached_heads += desc.kind() == PageKind::cached_head ? 1u : 0u;
        if (desc.kind() == PageKind::cached_head && desc.owner() == 0)
          breach("a cached span names its thread", page, 1, 0);
        span_bytes += std::uint64_t{desc.length()} << r.pages.page_shift;
      }
      page += desc.kind() == PageKind::slab ? slab_pages(slabs_[desc.slab()]) : desc.length();
    }
    if (mapped != mappable) breach("a mapped slab is mapped whole", region, mappable, mapped);
  }
  if (h.last_region != last_region)
    breach("the heap names the last region of its chain", heap, last_region, h.last_region);
  if (regions != h.regions) breach("regions counts the heap's regions", heap, h.regions, regions);
  if (slab_regions != h.slab_regions)
    breach("slab_regions counts the regions with slabs", heap, h.slab_regions, slab_regions);
  if (span_count != h.span_count) breach("span_count counts the held spans", heap, h.span_count, span_count);
  if (span_bytes != h.span_pages_bytes) breach("span bytes add up", heap, h.span_pages_bytes, span_bytes);

  std::uint64_t slab_count = 0;
  std::uint64_t cached_states = 0;
  std::uint64_t counted = 0;
  std::uint64_t returned = 0;
  const std::uint32_t words = state_words();
  for (std::uint32_t cls = 0; cls < kClasses; ++cls) {
    std::uint32_t previous = 0;
    for (std::uint32_t link = h.all_slabs[cls]; link != 0;
         previous = link, link = slabs_[link - 1].all_next) {
      if (link > slabs_high() || ++slab_count > h.slab_count || slab_count > slabs_high()) {
        breach("the heap's list of slabs ends", link, h.slab_count, slab_count);
        return breaches;
      }
      const Slab& s = slabs_[link - 1];
      if (!sound(s)) {
        breach("a slab's memory and states lie in their areas", link - 1, 0, s.first);
        return breaches;
      }
      counted += s.objects;
      if (counted > words) {
        breach("no two slabs have the same states", link - 1, words, counted);
        return breaches;
      }
      if (s.heap() != heap || s.cls() != cls)
        breach("a slab names its heap and class", link - 1, heap, s.heap());
      if (s.all_prev != previous)
        breach("the list of slabs is doubly linked", link - 1, previous, s.all_prev);
      if (!checks.derived) continue;
      // Else it would never be released, and its region never empty.
      if ((s.flags & kSlabDraining) != 0 && s.keeper != 0)
        breach("a slab of a region that drains is nobody's", link - 1, 0, s.keeper);
      const SlabCount count = count_slab(s);
      cached_states += count.cached;
      if (count.free != s.all_free())
        breach("a slab counts its free objects", link - 1, count.free, s.all_free());
      const std::uint32_t lowest = s.returned != 0 ? s.lowest & (kWholly - 1u) : s.hint.get();
      std::uint32_t below = 0;
      for (std::uint32_t i = 0; i < s.hint && i < s.objects; ++i) {
        if (states_[s.first_state + i].load(std::memory_order_relaxed) != kFree) continue;
        if (i >= lowest && ++below <= s.returned) continue;
        breach("no object below the hint is free", link - 1, s.hint, i);
        break;
      }
      returned += s.returned != 0 ? 1u : 0u;
      if (s.owner() != 0 && s.owner() != s.keeper)
        breach("a slab's owner keeps it", link - 1, s.keeper, s.owner());
      const bool listed = (s.flags & kSlabListed) != 0;
      const bool should = s.free != 0 && (s.flags & kSlabDraining) == 0;
      if (listed != should) breach("a slab with free objects is listed", link - 1, should, listed);
    }
  }
  if (slab_count != h.slab_count) breach("slab_count counts the slabs", heap, h.slab_count, slab_count);

  std::uint64_t entries = 0;
  std::uint64_t listed = 0;
  const auto check_list = [&](std::uint32_t head, std::uint32_t cls, std::uint32_t keeper) {
    std::uint32_t previous = 0;
    std::uint32_t empty = 0;
    for (std::uint32_t link = head; link != 0; previous = link, link = slabs_[link - 1].list_next) {
      if (link > slabs_high() || ++listed > slab_count) {
        breach("the lists of slabs with free objects end", link, h.slab_count, listed);
        break;
      }
      const Slab& s = slabs_[link - 1];
      if (s.keeper != keeper || s.cls() != cls || s.heap() != heap) {
        breach("a slab is in the list of its keeper and class", link - 1, keeper, s.keeper);
      }
      if (s.list_prev != previous)
        breach("a list of slabs is doubly linked", link - 1, previous, s.list_prev);
      empty += s.free == s.objects ? 1u : 0u;
    }
    return empty;
  };
  for (std::uint32_t cls = 0; checks.derived && cls < kClasses; ++cls)
    (void)check_list(h.partial[cls], cls, 0);
  std::uint64_t caches = 0;
  for (std::uint32_t link = h.first_cache; link != 0; link = caches_[link - 1].next) {
    if (link > caches_high() || ++caches > h.caches || caches > caches_high()) {
      breach("the heap's list of caches ends", link, h.caches, caches);
      return breaches;
    }
    const ThreadCache& cache = caches_[link - 1];
    for (std::uint32_t cls = 0; h.exact == 0 && checks.derived && cls < kClasses; ++cls) {
      const std::uint32_t count = cache.count(cls);
      if (count > kSizeClasses[cls].capacity) {
        breach("a magazine holds at most its capacity", cls, kSizeClasses[cls].capacity, count);
        continue;
      }
      const std::uint32_t out = cache.out_counts[cls];
      if (out > kSizeClasses[cls].outbox) {
        breach("an outbox holds at most its capacity", cls, kSizeClasses[cls].outbox, out);
        continue;
      }
      const auto entry = [&](std::uint32_t i) -> const CachedObject& {
        return i < count ? cache.objects(cls)[i] : cache.outbox(cls)[i - count];
      };
      entries += count + out;
      for (std::uint32_t i = 0; checks.magazines && i < count + out; ++i) {
        const CachedObject& object = entry(i);
        if (object.state >= words) {
          breach("an object in a magazine has a state", object.address, words, object.state);
          continue;
        }
        const std::uint16_t state = states_[object.state].load(std::memory_order_relaxed);
        if (state != cached_by(cache.slot))
          breach("an object in a magazine is cached by its thread", object.address, cache.slot, state);
        for (std::uint32_t j = 0; j < i; ++j) {
          if (entry(j).state == object.state) breach("an object is in a magazine once", object.address, i, j);
        }
      }
      const std::uint32_t empty = check_list(cache.own[cls], cls, cache.slot);
      if (empty != cache.empty[cls])
        breach("a thread counts its wholly free slabs", cls, empty, cache.empty[cls]);
      for (std::uint32_t next = cache.returned[cls]; next != 0; next = slabs_[next - 1].returned_next) {
        if (next > slabs_high() || returned == 0) {
          breach("the lists of slabs with returned objects end", cls, 0, next);
          break;
        }
        --returned;
        const Slab& s = slabs_[next - 1];
        if (s.keeper != cache.slot || s.cls() != cls || s.heap() != heap || s.returned == 0)
          breach("a slab with returned objects is in its keeper's list", next - 1, cache.slot, s.keeper);
      }
    }
  }
  if (checks.derived && returned != 0)
    breach("a slab with returned objects is in its keeper's list", heap, 0, returned);
  if (caches != h.caches) breach("caches counts the heap's caches", heap, h.caches, caches);
  if (checks.derived && checks.magazines && entries != cached_states)
    breach("every cached object is in a magazine", heap, cached_states, entries);
  if (h.exact != 0) {
    if (checks.derived && checks.magazines) breaches += check_spans_locked(heap, cached_heads, report);
  } else if (cached_heads != 0) {
    breach("only exact heaps cache spans", heap, 0, cached_heads);
  }
  return breaches;
}

}  // namespace extmem::alloc
