// Bounded walks over the chains of a heap: whatever the segment says, each ends, and no index leaves its table.
//
// A domain's processes trust each other not to write nonsense into the segment, and their fast paths show it. Whoever
// only looks (verify, statistics, walks; an inspector's copy may hold anything) goes by these, which leave out what
// cannot be true; verify() says what that was.
// Requires: the heap's lock, or a copy of one's own. Each returns false where its chain does not end as it should.
#pragma once

#include "alloc/core.hpp"

namespace extmem::alloc {

/// fn(slot, RegionCore&) for each region of the heap whose record makes sense.
template <typename Fn>
bool for_each_region(const Core& core, const HeapCore& h, Fn&& fn) noexcept {
  std::uint32_t left = core.geometry().max_regions;
  std::uint32_t next = h.first_region;
  for (; next != 0 && next <= core.geometry().max_regions && left != 0; --left) {
    const std::uint32_t region = next;
    RegionCore& r = core.region(region);
    next = r.next;
    if (core.sound(r)) fn(region, r);
  }
  return next == 0;
}

/// fn(index, Slab&) for each slab of the class whose record makes sense. It may take the slab out of the list.
template <typename Fn>
bool for_each_slab(const Core& core, const HeapCore& h, std::uint32_t cls, Fn&& fn) noexcept {
  const std::uint32_t high = core.slabs_high();
  std::uint32_t left = high;
  std::uint32_t link = h.all_slabs[cls];
  for (; link != 0 && link <= high && left != 0; --left) {
    const std::uint32_t index = link - 1;
    Slab& s = core.slab(index);
    link = s.all_next;
    if (core.sound(s)) fn(index, s);
  }
  return link == 0;
}

/// fn(ThreadCache&) for each cache of the heap.
template <typename Fn>
bool for_each_cache(const Core& core, const HeapCore& h, Fn&& fn) noexcept {
  const std::uint32_t high = core.caches_high();
  std::uint32_t left = high;
  std::uint32_t link = h.first_cache;
  for (; link != 0 && link <= high && left != 0; --left) {
    ThreadCache& cache = core.cache(link - 1);
    link = cache.next;
    fn(cache);
  }
  return link == 0;
}

/// fn(link, TagRecord&) for each tag record of the heap.
template <typename Fn>
bool for_each_tag(const Core& core, const HeapCore& h, Fn&& fn) noexcept {
  const std::uint32_t high = core.tags_high();
  std::uint32_t left = high;
  bool whole = true;
  for (const auto& bucket : h.tags) {
    std::uint32_t link = bucket;
    for (; link != 0 && link <= high && left != 0; --left) {
      const std::uint32_t now = link;
      TagRecord& record = core.tag_record(now - 1);
      link = record.next;
      fn(now, record);
    }
    whole &= link == 0;
  }
  return whole;
}

}  // namespace extmem::alloc
