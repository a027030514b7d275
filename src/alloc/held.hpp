// for_each_held: all that is held in a region, from the object states and the page descriptors.
#pragma once

#include "alloc/core.hpp"

namespace extmem::alloc {

/// Calls fn(holder, bytes, count); objects of a slab in groups of equal holders.
/// Requires: the heap's lock; for one instant's truth also that its caches are paused.
template <typename Fn>
void for_each_held(const Core& core, std::uint32_t region, Fn&& fn) noexcept {
  const RegionCore& r = core.region(region);
  if (!core.sound(r)) return;  // verify() says more
  const PageAllocator pages = core.pages(region);
  for (std::uint64_t page = 0; page < r.pages.pages;) {
    const PageDesc& desc = pages.desc(static_cast<std::uint32_t>(page));
    std::uint32_t length = desc.length();
    if (desc.kind() == PageKind::slab) {
      const std::uint32_t index = desc.slab();
      if (!core.slab_covers(index, region, static_cast<std::uint32_t>(page)) || !core.sound(core.slab(index)))
        return;
      const Slab& slab = core.slab(index);
      length = core.slab_pages(slab);
      std::uint32_t count = 0;
      std::uint16_t holder = 0;
      for (std::uint32_t i = 0; i < slab.objects; ++i) {
        const std::uint16_t state = core.state(slab.first_state + i).load(std::memory_order_relaxed);
        if (!is_held(state)) continue;
        if (count != 0 && holder_of(state) != holder) {
          fn(holder, std::uint64_t{count} * slab.size(), std::uint64_t{count});
          count = 0;
        }
        holder = holder_of(state);
        ++count;
      }
      if (count != 0) fn(holder, std::uint64_t{count} * slab.size(), std::uint64_t{count});
    } else if (desc.kind() == PageKind::held_head) {
      fn(desc.holder(), std::uint64_t{length} << r.pages.page_shift, std::uint64_t{1});
    }
    if (length == 0) return;  // a broken space: verify() says more
    page += length;
  }
}

}  // namespace extmem::alloc
