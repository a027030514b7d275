// Small objects: refilling a magazine, freeing on every path, returning objects to their slabs.
#include <algorithm>

#include "alloc/core.hpp"
#include "base/crash_point.hpp"

namespace extmem::alloc {

namespace {
/// Slabs with free objects, it among them, up to which a shared one stays that is wholly free.
constexpr std::uint32_t keep_shared(std::uint32_t cls) noexcept {
  return kSizeClasses[cls].size > kLastingSize ? 4 : 1;
}
// How much a class is used across threads, 0 to most_shared: a revocation adds, each refill under the lock takes one
// away. Above kShareAbove new slabs start shared, so that producers and consumers do not revoke for ever; and a class
// whose objects stop wandering is biased again some refills later.
constexpr std::uint32_t kShareAbove = 16;
// Of a large class a refill takes one or two objects, not dozens, and a revocation has to pay off all the same.
constexpr std::uint32_t share_step(std::uint32_t cls) noexcept {
  return kSizeClasses[cls].size > kLastingSize ? 256 : 4;
}
constexpr std::uint32_t most_shared(std::uint32_t cls) noexcept { return share_step(cls) * 16; }
}  // namespace

// ---- lists of slabs with free objects ----------------------------------------------------------------------

base::Relaxed<std::uint32_t>& Core::list_of(const Slab& s) const noexcept {
  if (s.owner() != 0) {
    if (ThreadCache* cache = cache_of(s.owner(), s.heap()); cache != nullptr) return cache->own[s.cls()];
  }
  return heaps_[s.heap()].partial[s.cls()];
}

void Core::link_listed(std::uint32_t index) noexcept {
  Slab& s = slabs_[index];
  auto& head = list_of(s);
  const std::uint32_t first = head;
  s.list_next = first;
  s.list_prev = 0;
  if (first != 0) slabs_[first - 1].list_prev = index + 1;
  head = index + 1;
  s.flags = s.flags | kSlabListed;
}

void Core::unlink_listed(std::uint32_t index) noexcept {
  Slab& s = slabs_[index];
  const std::uint32_t next = s.list_next;
  const std::uint32_t previous = s.list_prev;
  if (next != 0) slabs_[next - 1].list_prev = previous;
  if (previous != 0) {
    slabs_[previous - 1].list_next = next;
  } else {
    list_of(s) = next;
  }
  s.flags = s.flags & ~kSlabListed;
}

/// Counts objects whose states were set to kFree, the lowest of them at `lowest_state`.
/// Requires: the slab is the caller's (biased and busy, or under the heap's lock with its owner paused).
void Core::note_returned(std::uint32_t slab_index, std::uint32_t count, std::uint32_t lowest_state) noexcept {
  Slab& s = slabs_[slab_index];
  s.free.add(count);
  const std::uint32_t number = lowest_state - s.first_state;
  if (number < s.hint) s.hint = number;
  const std::uint32_t flags = s.flags;
  if ((flags & (kSlabListed | kSlabDraining)) == 0) link_listed(slab_index);
  if (s.free == s.objects && s.owner() != 0) {
    if (ThreadCache* cache = cache_of(s.owner(), s.heap()); cache != nullptr) cache->empty[s.cls()].add(1);
  }
}

void Core::return_locked(std::uint32_t slot, const CachedObject* objects, std::uint32_t count) noexcept {
  for (std::uint32_t i = 0; i < count;) {
    // Neighbours in a magazine mostly come from one slab: its record is touched once for all of them.
    const std::uint32_t link = objects[i].slab;
    std::uint32_t returned = 0;
    std::uint32_t lowest = ~std::uint32_t{0};
    for (; i < count && objects[i].slab == link; ++i, ++returned) {
      states_[objects[i].state].store(kFree, std::memory_order_relaxed);
      lowest = std::min(lowest, objects[i].state);
    }
    Slab& s = slabs_[link - 1];
    note_returned(link - 1, returned, lowest);
    if (s.owner() != 0 || s.free != s.objects) continue;
    // A shared slab became wholly free: keep it when few of its class are left to take from.
    std::uint32_t left = keep_shared(s.cls()) + 1;
    for (std::uint32_t next = heaps_[s.heap()].partial[s.cls()]; next != 0 && left != 0;
         next = slabs_[next - 1].list_next)
      --left;
    if ((s.flags & kSlabDraining) == 0 && left != 0) continue;
    if (s.flags & kSlabListed) unlink_listed(link - 1);
    release_slab_locked(slot, link - 1);
  }
}

// ---- refill ------------------------------------------------------------------------------------------------

/// Moves free objects of the slab into the magazine. Requires: as note_returned; the slab is listed and has some.
void Core::take_objects(std::uint32_t slab_index, ThreadCache& cache, std::uint32_t cls) noexcept {
  Slab& s = slabs_[slab_index];
  const std::uint32_t room = cache.room(cls);
  const std::uint32_t wanted = std::min(std::max(1u, room / 2), room - cache.count(cls));
  cache.widen(cls);
  const std::uint16_t mine = cached_by(cache.slot);
  const std::uint64_t first = address(s.region(), s.offset());
  const std::uint32_t first_state = s.first_state;
  const std::uint32_t objects = s.objects;
  const std::uint32_t size = s.size;
  if (s.owner() != 0 && s.free == objects) cache.empty[cls].add(~std::uint32_t{0});
  std::uint32_t n = cache.count(cls);
  std::uint32_t taken = 0;
  std::uint32_t i = s.hint;
  std::atomic<std::uint16_t>* const states = &states_[first_state];
  // Filled from the top, so that they are popped in the order of their addresses.
  const std::uint32_t batch = std::min<std::uint32_t>(wanted, s.free);
  CachedObject* into = &cache.objects(cls)[n + batch];
  for (std::uint64_t at = first + std::uint64_t{i} * size; taken < batch && i < objects; ++i, at += size) {
    if (states[i].load(std::memory_order_relaxed) != kFree) continue;
    states[i].store(mine, std::memory_order_relaxed);
    *--into = CachedObject{at, first_state + i, slab_index + 1};
    ++taken;
  }
  base::crash_point("refill.taken");
  n += taken;
  s.hint = i;
  s.free.add(-taken);
  cache.set_count(cls, n);
  if (s.free == 0) unlink_listed(slab_index);
  note_cached_out(cache, static_cast<std::int64_t>(std::uint64_t{taken} * size));
}

Result<void> Core::refill(std::uint32_t slot, ThreadCache& cache, std::uint32_t cls) noexcept {
  EXTMEM_TRY_VOID(enter(slot, cache));
  if (cache.count(cls) == 0 && cache.own[cls] != 0) take_objects(cache.own[cls] - 1, cache, cls);
  const bool filled = cache.count(cls) != 0;
  cache.gate.leave();
  if (filled) return {};

  const std::uint32_t heap = cache.heap;
  HeapCore& h = heaps_[heap];
  const HeapGuard guard(*this, slot, heap);
  if (!guard.held()) {
    return guard.refused(EXTMEM_ERROR(
        EDEADLK, "this thread holds the heap's lock: do not allocate from a heap inside a walk over it"));
  }
  if (cache.used == 0) return EXTMEM_ERROR(ESTALE, "the heap was destroyed while this call was under way");
  if (cache.count(cls) != 0) return {};
  bool metadata_full = false;
  bool any_region = false;
  for (int round = 0; round < 2; ++round) {
    if (h.sharing[cls] != 0 && round == 0) h.sharing[cls].add(~std::uint32_t{0});
    std::uint32_t link = h.partial[cls];
    while (link != 0 && !reaches(slabs_[link - 1].region())) link = slabs_[link - 1].list_next;
    if (link != 0) {
      const std::uint32_t index = link - 1;
      if (slabs_[index].free == slabs_[index].objects && h.sharing[cls] <= kShareAbove) {
        // Nobody holds or caches anything of it: it can become ours.
        unlink_listed(index);
        slabs_[index].home = Slab::pack(heap, slot);
        link_listed(index);
        cache.empty[cls].add(1);
      }
      take_objects(index, cache, cls);
      return {};
    }
    const std::uint32_t owner = h.sharing[cls] > kShareAbove ? 0 : slot;
    if (new_slab_locked(slot, heap, cls, owner, metadata_full, any_region) != shared::IndexList::kNone) {
      take_objects((owner != 0 ? cache.own[cls] : h.partial[cls]) - 1, cache, cls);
      return {};
    }
    if (!any_region) return EXTMEM_ERROR(ENOTBLK, "no region of the heap is large enough for slabs");
    if (round == 0) EXTMEM_TRY_VOID(flush_all_locked(slot, heap, true));
  }
  if (metadata_full) {
    return EXTMEM_ERROR(ENOSPC, "the control segment is full: raise DomainOptions::small_metadata");
  }
  return EXTMEM_ERROR(ENOMEM, "the heap has no free memory of this size: add a region or allow growth");
}

Result<std::uint64_t> Core::allocate_small(std::uint32_t slot, ThreadCache& cache, std::uint32_t cls,
                                           std::uint16_t holder) noexcept {
  const bool tagged = holder >= kFirstTagHolder;
  for (;;) {
    EXTMEM_TRY_VOID(enter(slot, cache));
    TagDelta* delta = tagged ? delta_of(cache, holder) : nullptr;
    const std::uint32_t n = cache.count(cls);
    if (n != 0 && (!tagged || delta != nullptr)) {
      const CachedObject object = cache.objects(cls)[n - 1];
      if (delta != nullptr) {
        const std::int64_t bytes = delta->bytes + kSizeClasses[cls].size;
        delta->bytes = bytes;
        if (bytes > delta->most) delta->most = bytes;
        delta->count.add(1);
      }
      states_[object.state].store(held_by(holder), std::memory_order_relaxed);
      std::atomic_signal_fence(std::memory_order_seq_cst);
      cache.set_count(cls, n - 1);
      cache.gate.leave();
      return object.address;
    }
    cache.gate.leave();
    if (tagged && delta == nullptr) EXTMEM_TRY_VOID(make_delta(slot, cache, holder));
    if (n == 0) EXTMEM_TRY_VOID(refill(slot, cache, cls));
  }
}

// ---- free --------------------------------------------------------------------------------------------------

/// Makes a slab that is biased to another thread everybody's.
Result<void> Core::revoke(std::uint32_t slot, std::uint32_t slab_index) noexcept {
  Slab& s = slabs_[slab_index];
  HeapCore& h = heaps_[s.heap()];
  const HeapGuard guard(*this, slot, s.heap());
  if (!guard.held()) {
    return guard.refused(EXTMEM_ERROR(
        EDEADLK, "this thread holds the heap's lock: do not free into a heap inside a walk over it"));
  }
  if (s.objects == 0 || &heaps_[s.heap()] != &h) return {};
  return revoke_locked(slot, slab_index);
}

Result<void> Core::revoke_locked(std::uint32_t slot, std::uint32_t slab_index) noexcept {
  Slab& s = slabs_[slab_index];
  HeapCore& h = heaps_[s.heap()];
  const std::uint32_t owner = s.owner();
  if (owner == 0 || owner == slot) return {};
  ThreadCache* cache = cache_of(owner, s.heap());
  if (cache != nullptr) {
    EXTMEM_TRY(stands, pause(slot, *cache));
    if (!stands) return {};  // its thread was dead: the slab is everybody's, or gone
  }
  const bool listed = (s.flags & kSlabListed) != 0;
  if (listed) unlink_listed(slab_index);
  if (cache != nullptr && s.free == s.objects) cache->empty[s.cls()].add(~std::uint32_t{0});
  s.share();
  base::crash_point("revoke.shared");
  if (listed) link_listed(slab_index);
  if (cache != nullptr) resume(*cache);
  h.sharing[s.cls()] = std::min(h.sharing[s.cls()] + share_step(s.cls()), most_shared(s.cls()));
  return {};
}

/// A free into a region that drains: straight to the slab, so that nothing of it is cached again.
/// False: the slab is no longer what the caller saw; look again.
Result<bool> Core::free_draining(std::uint32_t slot, std::uint32_t heap, std::uint32_t slab_index,
                                 std::uint64_t first, std::uint32_t state_index,
                                 std::uint16_t seen) noexcept {
  Slab& s = slabs_[slab_index];
  HeapCore& h = heaps_[heap];
  const HeapGuard guard(*this, slot, heap);
  if (!guard.held()) {
    return guard.refused(EXTMEM_ERROR(
        EDEADLK, "this thread holds the heap's lock: do not free into a heap inside a walk over it"));
  }
  // Of two frees of one object the later may come when the slab is gone, or is another's, or no longer drains.
  const std::uint32_t number = state_index - s.first_state;
  if (s.first != first || number >= s.objects || s.heap() != heap || (s.flags & kSlabDraining) == 0)
    return false;
  if (!states_[state_index].compare_exchange_strong(seen, cached_by(slot), std::memory_order_acq_rel)) {
    return EXTMEM_ERROR(EALREADY, "double free: another thread has freed this object at the same time");
  }
  RegionCore& r = regions_[s.region()];
  const std::uint16_t holder = holder_of(seen);
  if (holder >= kFirstTagHolder) {
    if (TagRecord* record = find_tag_locked(h, holder); record != nullptr) {
      count_tag_locked(slot, heap, *record, -static_cast<std::int64_t>(s.size.get()), -1);
    }
  }
  note_out(h, -static_cast<std::int64_t>(s.size.get()));
  const CachedObject object{0, state_index, slab_index + 1};
  return_locked(slot, &object, 1);
  // Release pairs with the acquire of who waits for the drain.
  r.drained.fetch_add(1, std::memory_order_release);
  return true;
}

Result<void> Core::free_small(std::uint32_t slot, ThreadCache& cache, std::uint32_t region,
                              std::uint64_t offset) noexcept {
  const std::uint32_t page = static_cast<std::uint32_t>(offset >> regions_[region].pages.page_shift);
  const PageDesc& desc = pages(region).desc(page);
  for (;;) {
    EXTMEM_TRY_VOID(enter(slot, cache));
    const auto refuse = [&](Error error) {
      cache.gate.leave();
      return error;
    };
    if (desc.kind() != PageKind::slab) {
      return refuse(EXTMEM_ERROR(ENOTBLK, "the page belongs to no slab"));
    }
    const std::uint32_t index = desc.slab();
    if (!slab_covers(index, region, page)) {
      return refuse(EXTMEM_ERROR(
          EALREADY,
          "nothing is allocated at this address: it was freed (a double free), or never allocated"));
    }
    Slab& s = slabs_[index];
    const std::uint32_t owner = s.owner();
    if (owner != 0 && owner != slot) {
      cache.gate.leave();
      EXTMEM_TRY_VOID(revoke(slot, index));
      continue;
    }
    const std::uint64_t first = s.first;
    const std::uint32_t size = s.size;
    const std::uint32_t first_state = s.first_state;
    // A shared slab may be released and made anew, or be biased again when it is wholly free, while a *second* free of
    // an object looks at it.
    const auto changed = [&] {
      std::atomic_thread_fence(std::memory_order_acquire);
      return !slab_covers(index, region, page) || s.first != first || s.size != size ||
             s.first_state != first_state || s.owner() != owner;
    };
    const ObjectPlace place = place_of(make_ptr(region, offset) - first, s.reciprocal);
    const std::uint32_t cls = s.cls();
    const bool outside = place.number >= s.objects;
    const std::uint32_t state_index = first_state + (outside ? 0 : static_cast<std::uint32_t>(place.number));
    const std::uint16_t seen = states_[state_index].load(std::memory_order_relaxed);
    const std::uint16_t holder = holder_of(seen);
    Error wrong;
    if (outside) {
      wrong = EXTMEM_ERROR(EINVAL, "not an allocated object: the address is in a slab's unused tail");
    } else if (!place.exact) {
      wrong = EXTMEM_ERROR(EINVAL, "interior pointer: free the address that allocate returned");
    } else if (!is_held(seen)) {
      wrong = EXTMEM_ERROR(EALREADY, "double free: the object is already free");
    } else if (holder == kHolderMemzone) {
      wrong = EXTMEM_ERROR(EPERM, "the memory belongs to a memzone: free the memzone by its name");
    }
    if (wrong) {
      const bool look_again = changed();
      cache.gate.leave();
      if (look_again) continue;
      return wrong;
    }
    TagDelta* delta = nullptr;
    if (holder >= kFirstTagHolder) {
      delta = delta_of(cache, holder);
      if (delta == nullptr) {
        cache.gate.leave();
        EXTMEM_TRY_VOID(make_delta(slot, cache, holder));
        continue;
      }
    }
    if (s.flags & kSlabDraining) {
      cache.gate.leave();
      EXTMEM_TRY(freed, free_draining(slot, cache.heap, index, first, state_index, seen));
      if (freed) return {};
      continue;
    }
    const std::uint32_t n = cache.count(cls);
    if (n >= cache.room(cls)) {
      cache.gate.leave();
      EXTMEM_TRY_VOID(flush_class(slot, cache, cls));
      continue;
    }
    if (owner == 0) {
      // The one word that decides between racing frees. acq_rel: the winner hands the object on.
      std::uint16_t expected = seen;
      if (!states_[state_index].compare_exchange_strong(expected, cached_by(slot),
                                                        std::memory_order_acq_rel)) {
        return refuse(
            EXTMEM_ERROR(EALREADY, "double free: another thread has freed this object at the same time"));
      }
      if (changed()) {  // then the word we took was another object's: give it back
        // Unless its owner has freed it since: then it is the owner's again.
        std::uint16_t ours = cached_by(slot);
        (void)states_[state_index].compare_exchange_strong(ours, seen, std::memory_order_acq_rel);
        return refuse(EXTMEM_ERROR(EALREADY, "double free: the object was freed and its memory returned"));
      }
    } else {
      states_[state_index].store(cached_by(slot), std::memory_order_relaxed);
    }
    cache.objects(cls)[n] = CachedObject{address(region, offset), state_index, index + 1};
    cache.set_count(cls, n + 1);
    if (delta != nullptr) {
      delta->bytes.add(-static_cast<std::int64_t>(size));
      delta->count.add(-1);
    }
    cache.gate.leave();
    return {};
  }
}

Result<void> Core::flush_class(std::uint32_t slot, ThreadCache& cache, std::uint32_t cls) noexcept {
  // First without a lock: what belongs to our own slabs. The rest stays, at the bottom, in order.
  EXTMEM_TRY_VOID(enter(slot, cache));
  const std::uint32_t n = cache.count(cls);
  cache.widen(cls);
  if (n < cache.room(cls)) {  // it was full for a thread that had not used it much
    cache.gate.leave();
    return {};
  }
  CachedObject* objects = cache.objects(cls);
  const std::uint32_t old = n / 2;
  std::uint32_t left = 0;
  for (std::uint32_t i = 0; i < old;) {
    // Neighbours in a magazine mostly come from one slab: its record is touched once for all of them.
    const std::uint32_t link = objects[i].slab;
    Slab& s = slabs_[link - 1];
    if (s.owner() != slot) {
      objects[left++] = objects[i++];
      continue;
    }
    std::uint32_t returned = 0;
    std::uint32_t lowest = ~std::uint32_t{0};
    for (; i < old && objects[i].slab == link; ++i, ++returned) {
      states_[objects[i].state].store(kFree, std::memory_order_relaxed);
      lowest = std::min(lowest, objects[i].state);
    }
    base::crash_point("flush.freed");
    note_returned(link - 1, returned, lowest);
  }
  const std::uint32_t returned = old - left;
  std::copy(objects + old, objects + n, objects + left);
  cache.set_count(cls, n - returned);
  note_cached_out(cache, -static_cast<std::int64_t>(std::uint64_t{returned} * kSizeClasses[cls].size));
  const bool too_many_empty = cache.empty[cls] > keep_empty(cls);
  cache.gate.leave();
  if (left == 0 && !too_many_empty) return {};

  const HeapGuard guard(*this, slot, cache.heap);
  if (!guard.held()) {
    if (returned != 0) return {};  // there is room now, and that is what was wanted
    return guard.refused(EXTMEM_ERROR(
        EDEADLK, "this thread holds the heap's lock: do not free into a heap inside a walk over it"));
  }
  if (too_many_empty) release_empty_locked(slot, cache, cls, keep_empty(cls) / 2);
  const std::uint32_t now = std::min<std::uint32_t>(left, cache.count(cls));
  if (now == 0) return {};
  return_locked(slot, objects, now);
  const std::uint32_t count = cache.count(cls);
  std::copy(objects + now, objects + count, objects);
  cache.set_count(cls, count - now);
  note_cached_out(cache, -static_cast<std::int64_t>(std::uint64_t{now} * kSizeClasses[cls].size));
  return {};
}

}  // namespace extmem::alloc
