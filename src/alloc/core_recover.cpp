// After a death: everything that is not journaled, computed anew from what is.
//
// The truth: the page descriptors, the heap's lists of slabs, regions and caches (all journaled, so whole once the
// dead one's journal is undone), the slabs' constant fields, and the object states. Derived from it: how many objects
// of a slab are free and which is the first, the lists of slabs with free objects, the magazines, the counters.
// Every function here only ever moves state words from "cached" to "free" and recomputes the rest: so each may be cut
// short at any instruction and simply be run again.
#include <algorithm>

#include "alloc/chains.hpp"
#include "alloc/core.hpp"
#include "alloc/held.hpp"
#include "alloc/span_magazines.hpp"
#include "base/crash_point.hpp"

namespace extmem::alloc {

/// Frees what a slot has cached of a slab. Returns how many objects, and the lowest one's state index.
std::uint32_t Core::free_cached(Slab& s, std::uint32_t by, std::uint32_t& lowest) noexcept {
  const std::uint16_t cached = cached_by(by);
  std::uint32_t freed = 0;
  lowest = ~std::uint32_t{0};
  const std::uint32_t objects = s.objects;
  std::atomic<std::uint16_t>* const states = &states_[s.first_state];
  for (std::uint32_t i = 0; i < objects; ++i) {
    if (states[i].load(std::memory_order_relaxed) != cached) continue;
    states[i].store(kFree, std::memory_order_relaxed);
    if (freed++ == 0) lowest = s.first_state + i;
  }
  return freed;
}

/// Counts a slab's free objects anew, from its states. It must be in no list of those with returned objects.
void Core::rebuild_slab(std::uint32_t index) noexcept {
  Slab& s = slabs_[index];
  const std::uint32_t objects = s.objects;
  const std::atomic<std::uint16_t>* const states = &states_[s.first_state];
  std::uint32_t free = 0;
  std::uint32_t hint = objects;
  for (std::uint32_t i = 0; i < objects; ++i) {
    if (states[i].load(std::memory_order_relaxed) != kFree) continue;
    if (free++ == 0) hint = i;
  }
  s.free = static_cast<std::uint16_t>(free);
  s.hint = static_cast<std::uint16_t>(hint);
  s.returned = 0;
  s.lowest = 0;
  s.returned_next = 0;
}

Result<void> Core::bury_cache_locked(std::uint32_t slot, ThreadCache& cache) noexcept {
  const std::uint32_t dead = cache.slot;
  HeapCore& h = heaps_[cache.heap];
  if (h.exact != 0) {
    // What it had cached is in its row at every instruction, and the heads say what is returned already.
    empty_cache_locked(slot, cache);
    return unlink_cache_locked(slot, cache);
  }
  h.untold = 1;
  spill_tags_locked(cache);
  note_out(h, cache.out_delta);
  cache.out_delta = 0;
  cache.forget();
  base::crash_point("bury.emptied");
  for (std::uint32_t cls = 0; cls < kClasses; ++cls) {
    // Bounded as alloc/chains.hpp does it; damage is verify()'s to tell.
    std::uint32_t left = slabs_high();
    for (std::uint32_t link = h.all_slabs[cls]; link != 0 && link <= slabs_high() && left != 0; --left) {
      const std::uint32_t index = link - 1;
      Slab& s = slabs_[index];
      link = s.all_next;
      if (!sound(s)) continue;
      std::uint32_t lowest;
      const std::uint32_t freed = free_cached(s, dead, lowest);
      base::crash_point("bury.freed");
      if (s.keeper == dead) {
        // It was in the dead one's list, perhaps half in: nothing else links to it.
        s.flags = s.flags & static_cast<std::uint16_t>(~kSlabListed);
        s.abandon();
        rebuild_slab(index);
        if (s.free != 0 && (s.flags & kSlabDraining) == 0) link_listed(index);
      } else if (freed != 0) {
        (void)give_back_locked(index, freed, lowest, slot);
      } else {
        continue;
      }
      base::crash_point("bury.shared");
      if (s.keeper == 0 && s.free == s.objects) {
        if (s.flags & kSlabListed) unlink_listed(index);
        release_slab_locked(slot, index);
      }
    }
  }
  return unlink_cache_locked(slot, cache);
}

Result<void> Core::drop_dead_cache_locked(std::uint32_t slot, ThreadCache& cache) noexcept {
  // Outside an operation a cache is whole, whether or not its thread lives: then all goes the usual way.
  if (!cache.gate.busy()) {
    empty_cache_locked(slot, cache);
    return unlink_cache_locked(slot, cache);
  }
  return bury_cache_locked(slot, cache);
}

Result<void> Core::repair_heap_locked(std::uint32_t slot, std::uint32_t heap) noexcept {
  HeapCore& h = heaps_[heap];
  h.torn = 1;
  h.untold = 1;
  base::crash_point("repair.begun");
  // Threads may be paused already, by the dead one: then they are merely asked again. A dead thread needs no pause.
  (void)for_each_cache(*this, h, [&](ThreadCache& cache) {
    if (cache.slot != slot) cache.gate.ask();
  });
  shared::Handshake::fence(has_membarrier_, peers_.shared);
  Error stuck;
  (void)for_each_cache(*this, h, [&](ThreadCache& cache) {
    if (stuck || cache.slot == slot) return;
    if (cache.gate.wait(peers_, cache.slot) == shared::Handshake::Stand::stuck)
      stuck = shared::stuck_error(peers_, cache.slot);
  });
  // Nobody is resumed: the dead one may have been half way through any cache. Who enters its own meanwhile waits, looks
  // at the lock after a while, and tries the repair again.
  if (stuck) return stuck;
  (void)for_each_cache(*this, h, [&](ThreadCache& cache) {
    if (h.exact != 0) {
      restore_spans_locked(slot, cache);
    } else {
      cache.forget();
    }
  });
  h.open_caches = 0;
  for (auto& partial : h.partial) partial = 0;
  base::crash_point("repair.emptied");
  for (std::uint32_t cls = 0; cls < kClasses; ++cls) {
    // Bounded as alloc/chains.hpp does it; damage is verify()'s to tell.
    std::uint32_t left = slabs_high();
    for (std::uint32_t link = h.all_slabs[cls]; link != 0 && link <= slabs_high() && left != 0; --left) {
      const std::uint32_t index = link - 1;
      Slab& s = slabs_[index];
      link = s.all_next;
      if (!sound(s)) continue;
      std::atomic<std::uint16_t>* const states = &states_[s.first_state];
      for (std::uint32_t i = 0; i < s.objects; ++i) {
        const std::uint16_t state = states[i].load(std::memory_order_relaxed);
        if (state != kFree && !is_held(state)) states[i].store(kFree, std::memory_order_relaxed);
      }
      rebuild_slab(index);
      const bool draining = (regions_[s.region()].flags & kRegionDraining) != 0;
      const std::uint32_t keeper = s.keeper;
      if (keeper != 0 && (draining || cache_of(keeper, heap) == nullptr ||
                          (peers_.all != nullptr && peers_.all->slot_dead(keeper)))) {
        s.abandon();
      }
      s.flags = draining ? kSlabDraining : std::uint16_t{0};
      base::crash_point("repair.slab");
      if (s.free == s.objects) {
        release_slab_locked(slot, index);
      } else if (s.free != 0 && !draining) {
        link_listed(index);
      }
    }
  }
  settle_tags_paused(heap);
  resume_all(slot, h);
  // The dead one may have paused this very thread.
  if (ThreadCache* own = cache_of(slot, heap); own != nullptr) resume(*own);
  h.torn = 0;
  base::crash_point("repair.done");
  return {};
}

void Core::settle_tags_paused(std::uint32_t heap) noexcept {
  HeapCore& h = heaps_[heap];
  if (h.untold == 0) return;
  (void)for_each_cache(*this, h, [](ThreadCache& cache) {
    cache.out_delta = 0;
    for (TagDelta& delta : cache.deltas) {
      delta.bytes = 0;
      delta.most = 0;
      delta.count = 0;
    }
  });
  (void)for_each_tag(*this, h, [](std::uint32_t, TagRecord& record) {
    record.bytes = 0;
    record.count = 0;
  });
  (void)for_each_region(*this, h, [&](std::uint32_t region, const RegionCore&) {
    for_each_held(*this, region, [&](std::uint16_t holder, std::uint64_t bytes, std::uint64_t count) {
      if (holder < kFirstTagHolder) return;
      TagRecord* record = find_tag_locked(h, holder);
      if (record == nullptr) return;  // verify() says so
      record->bytes.add(static_cast<std::int64_t>(bytes));
      record->count.add(static_cast<std::int64_t>(count));
      record->peak = std::max(record->peak.get(), record->bytes.get());
    });
  });
  std::int64_t out = 0;
  for (std::uint32_t cls = 0; cls < kClasses; ++cls) {
    (void)for_each_slab(*this, h, cls, [&](std::uint32_t, const Slab& s) {
      out += static_cast<std::int64_t>(std::uint64_t{s.objects - s.all_free()} * s.size());
    });
  }
  h.out_bytes.store(out, std::memory_order_relaxed);
  h.untold = 0;
}

Result<bool> Core::change_holder_locked(std::uint32_t slot, std::uint32_t heap, std::uint64_t ptr,
                                        std::uint16_t from, std::uint16_t to) noexcept {
  HeapCore& h = heaps_[heap];
  const auto region = static_cast<std::uint32_t>(ptr >> 48);
  const std::uint64_t offset = ptr & ((std::uint64_t{1} << 48) - 1);
  const RegionCore& r = regions_[region];
  // The caller looked before it had the lock: region and object may be gone since.
  if ((r.flags & kRegionAttached) == 0 || r.heap != heap || offset >= r.length) return false;
  PageAllocator allocator = pages(region);
  const auto page = static_cast<std::uint32_t>(offset >> r.pages.page_shift);
  const PageDesc& desc = allocator.desc(page);
  // The accounts first: should we die in between, the heap is repaired, and counts anew.
  TagRecord* payee = to >= kFirstTagHolder ? make_tag_locked(slot, h, to) : nullptr;
  if (to >= kFirstTagHolder && payee == nullptr) return false;
  std::int64_t bytes;
  if (desc.kind() == PageKind::slab) {
    EXTMEM_TRY(changed, change_state_locked(slot, desc.slab(), ptr, from, to));
    if (!changed) return false;
    bytes = slabs_[desc.slab()].size();
  } else {
    if (desc.kind() != PageKind::held_head || desc.holder() != from) return false;
    bytes = static_cast<std::int64_t>(std::uint64_t{desc.length()} << r.pages.page_shift);
    auto tx = transaction(slot);
    allocator.set_holder(tx, page, to);
    tx.commit();
  }
  base::crash_point("holder.changed");
  if (from >= kFirstTagHolder) {
    if (TagRecord* payer = find_tag_locked(h, from); payer != nullptr)
      count_tag_locked(slot, heap, *payer, -bytes, -1);
  }
  if (payee != nullptr) count_tag_locked(slot, heap, *payee, bytes, 1);
  return true;
}

/// Changes who holds an object of a slab, if `from` still does.
Result<bool> Core::change_state_locked(std::uint32_t slot, std::uint32_t slab_index, std::uint64_t ptr,
                                       std::uint16_t from, std::uint16_t to) noexcept {
  Slab& s = slabs_[slab_index];
  // Who owns the slab frees with plain stores after a look: a change between the two would be lost, and the object both handed
  // over and free. So the owner stands still, as for every change that others make in its slabs.
  const std::uint32_t owner = s.owner();
  ThreadCache* cache = owner == 0 || owner == slot ? nullptr : cache_of(owner, s.heap());
  bool paused = false;
  if (cache != nullptr) {
    EXTMEM_TRY(stands, pause(slot, *cache));
    paused = stands;  // else it had died: the slab is everybody's now, or gone
    base::crash_point("holder.paused");
  }
  const ObjectPlace place = place_of(ptr - s.first, s.reciprocal);
  bool changed = false;
  if (place.exact && place.number < s.objects) {  // else freed meanwhile, and the place is another slab's
    std::uint16_t expected = held_by(from);
    // Against the frees of a shared slab. acq_rel: as those.
    changed = states_[s.first_state + place.number].compare_exchange_strong(expected, held_by(to),
                                                                            std::memory_order_acq_rel);
  }
  if (paused) resume(*cache);
  return changed;
}

void Core::set_holder_locked(shared::Transaction& tx, std::uint64_t ptr, std::uint16_t holder) noexcept {
  const auto region = static_cast<std::uint32_t>(ptr >> 48);
  const std::uint64_t offset = ptr & ((std::uint64_t{1} << 48) - 1);
  PageAllocator allocator = pages(region);
  const auto page = static_cast<std::uint32_t>(offset >> regions_[region].pages.page_shift);
  if (allocator.desc(page).kind() != PageKind::slab) {
    // Of an exact heap: its owner, if it has one, is the caller. The row ends, whatever becomes of the transaction.
    if (const std::uint32_t owner = allocator.desc(page).owner(); owner != 0) {
      if (ThreadCache* const cache = cache_of(owner, regions_[region].heap); cache != nullptr)
        SpanMagazines::of(*cache).note_changed();
    }
    allocator.set_holder(tx, page, holder);
    return;
  }
  const Slab& s = slabs_[allocator.desc(page).slab()];
  const std::uint64_t number = place_of(ptr - s.first, s.reciprocal).number;
  // Relaxed is an atomic and nothing else: the journal writes words of that kind.
  static_assert(sizeof(base::Relaxed<std::uint16_t>) == sizeof(std::atomic<std::uint16_t>));
  tx.set(reinterpret_cast<base::Relaxed<std::uint16_t>&>(states_[s.first_state + number]), held_by(holder));
}

Result<Core::Reclaimed> Core::reclaim_locked(std::uint32_t slot, std::uint32_t heap, HeirOf heir) noexcept {
  HeapCore& h = heaps_[heap];
  Reclaimed sum;
  for (std::uint32_t cls = 0; cls < kClasses; ++cls) {
    // Bounded as alloc/chains.hpp does it; damage is verify()'s to tell.
    std::uint32_t left = slabs_high();
    for (std::uint32_t link = h.all_slabs[cls]; link != 0 && link <= slabs_high() && left != 0; --left) {
      const std::uint32_t index = link - 1;
      Slab& s = slabs_[index];
      link = s.all_next;
      if (!sound(s)) continue;
      std::atomic<std::uint16_t>* const states = &states_[s.first_state];
      bool ours = s.owner() == 0 || (s.owner() == slot && cache_of(slot, heap) != nullptr);
      std::uint32_t freed = 0;
      std::uint32_t lowest = 0;
      std::uint16_t last = 0;  // neighbours mostly have one holder
      std::uint16_t last_heir = kLeaveIt;
      for (std::uint32_t i = 0; i < s.objects; ++i) {
        std::uint16_t state = states[i].load(std::memory_order_relaxed);
        if (!is_held(state)) continue;
        if (state != last) {
          last = state;
          last_heir = heir(holder_of(state), s.region());
        }
        if (last_heir == kLeaveIt) continue;
        if (!ours) {
          // Another living thread owns the slab: it stands still while the slab becomes everybody's.
          if (s.owner() == slot) {
            s.abandon();  // it leaves, and its cache is gone
          } else {
            EXTMEM_TRY_VOID(revoke_locked(slot, index));
          }
          if (s.objects == 0) break;  // its owner had died, and the slab went with its cache
          ours = true;
          h.untold = 1;
        }
        // Compare-and-swap: a living thread may be freeing it for the dead one. Four at once where they are alike: a
        // dead process may have held millions.
        if (last_heir == kFreeIt && (s.first_state + i) % 4 == 0 && i + 4 <= s.objects) {
          std::uint64_t four = std::uint64_t{state} * 0x0001'0001'0001'0001;
          if (reinterpret_cast<std::atomic<std::uint64_t>&>(states[i]).compare_exchange_strong(
                  four, 0, std::memory_order_acq_rel)) {
            static_assert(kFree == 0);
            sum.freed_objects += 4;
            sum.freed_bytes += std::uint64_t{4} * s.size();
            h.untold = 1;
            if (freed == 0) lowest = s.first_state + i;
            freed += 4;
            i += 3;
            base::crash_point("reclaim.four");
            continue;
          }
        }
        if (last_heir != kFreeIt && last_heir >= kFirstTagHolder &&
            make_tag_locked(slot, h, last_heir) == nullptr) {
          return EXTMEM_ERROR(ENOSPC, "no room for another (heap, tag) pair: raise DomainOptions::max_tags");
        }
        const std::uint16_t to = last_heir == kFreeIt ? kFree : held_by(last_heir);
        if (!states[i].compare_exchange_strong(state, to, std::memory_order_acq_rel)) continue;
        ++(to == kFree ? sum.freed_objects : sum.given_objects);
        (to == kFree ? sum.freed_bytes : sum.given_bytes) += s.size();
        h.untold = 1;
        if (to == kFree && freed++ == 0) lowest = s.first_state + i;
        base::crash_point("reclaim.object");
      }
      if (freed == 0) continue;
      (void)give_back_locked(index, freed, lowest, slot);
      note_out(h, -static_cast<std::int64_t>(std::uint64_t{freed} * s.size()));
      base::crash_point("reclaim.slab");
      if (s.keeper == 0 && s.free == s.objects) {
        if (s.flags & kSlabListed) unlink_listed(index);
        release_slab_locked(slot, index);
      }
    }
  }
  std::uint32_t regions_left = geometry_.max_regions;
  for (std::uint32_t region = h.first_region;
       region != 0 && region <= geometry_.max_regions && regions_left != 0;
       region = regions_[region].next, --regions_left) {
    RegionCore& r = regions_[region];
    if (!sound(r)) continue;
    PageAllocator allocator = pages(region);
    for (std::uint32_t page = 0; page < r.pages.pages;) {
      const PageDesc& desc = allocator.desc(page);
      const bool slab = desc.kind() == PageKind::slab;
      if (slab && !slab_covers(desc.slab(), region, page)) break;
      const std::uint32_t length = slab ? slab_pages(slabs_[desc.slab()]) : desc.length();
      if (length == 0 || length > r.pages.pages - page) break;  // a broken space: verify() says more
      // Where the next run begins, also when this one is freed and merged with what lies around it.
      const std::uint64_t next =
          std::uint64_t{page} + length + (slab ? 0 : allocator.free_after(page, length));
      if (desc.kind() == PageKind::held_head) {
        const std::uint16_t to = heir(desc.holder(), region);
        if (to != kLeaveIt) {
          ++(to == kFreeIt ? sum.freed_objects : sum.given_objects);
          (to == kFreeIt ? sum.freed_bytes : sum.given_bytes) += std::uint64_t{length} << r.pages.page_shift;
          h.untold = 1;
          if (to == kFreeIt) {
            free_span_locked(slot, heap, region, page);
          } else {
            if (to >= kFirstTagHolder && make_tag_locked(slot, h, to) == nullptr) {
              return EXTMEM_ERROR(ENOSPC,
                                  "no room for another (heap, tag) pair: raise DomainOptions::max_tags");
            }
            auto tx = transaction(slot);
            allocator.set_holder(tx, page, to);
            tx.commit();
          }
          base::crash_point("reclaim.span");
        }
      }
      if (next >= r.pages.pages) break;
      page = static_cast<std::uint32_t>(next);
    }
    if (r.flags & kRegionDraining)
      r.drained.fetch_add(1, std::memory_order_release);  // pairs with the drain's acquire
  }
  return sum;
}

}  // namespace extmem::alloc
