// Small objects: refilling a magazine, allocating and freeing on every path. How they return to their slabs: core_return.cpp.
#include <algorithm>

#include "alloc/core.hpp"
#include "alloc/heap_guard.hpp"
#include "base/crash_point.hpp"

namespace extmem::alloc {

namespace {
// How much a class is used across threads, 0 to most_shared: a revocation adds, each refill under the lock takes one
// away. Above kShareAbove new slabs start shared, so that producers and consumers do not revoke for ever; and a class
// whose objects stop wandering is biased again some refills later.
constexpr std::uint32_t kShareAbove = 16;
// Of a large class a refill takes one or two objects, not dozens, and a revocation has to pay off all the same.
constexpr std::uint32_t share_step(std::uint32_t cls) noexcept {
  return kSizeClasses[cls].size > kLastingSize ? 256 : 4;
}
constexpr std::uint32_t most_shared(std::uint32_t cls) noexcept { return share_step(cls) * 16; }
// Refills that leave slabs without keeper after memory was short: else few slabs would go from one keeper to the next, each
// time by way of a flush of all caches.
constexpr std::uint32_t kTight = 64;
}  // namespace

// ---- refill ------------------------------------------------------------------------------------------------

/// Moves free objects of the slab into the magazine. Requires: as note_returned; the slab is listed.
void Core::take_objects(std::uint32_t slab_index, ThreadCache& cache, std::uint32_t cls) noexcept {
  Slab& s = slabs_[slab_index];
  const std::uint32_t room = cache.room(cls);
  const std::uint32_t wanted = std::min(std::max(1u, room / 2), room - cache.count(cls));
  cache.widen(cls);
  const std::uint16_t mine = cached_by(cache.slot);
  const std::uint64_t first = address(s.region(), s.offset());
  const std::uint32_t first_state = s.first_state;
  const std::uint32_t objects = s.objects;
  const std::uint32_t size = s.size();
  if (s.keeper != 0 && s.free == objects) cache.empty[cls].add(~std::uint32_t{0});
  std::uint32_t n = cache.count(cls);
  std::uint32_t taken = 0;
  std::uint32_t i = s.hint;
  std::atomic<std::uint16_t>* const states = &states_[first_state];
  // Filled from the top, so that they are popped in the order of their addresses.
  const std::uint32_t batch = std::min<std::uint32_t>(wanted, s.free);
  CachedObject* into = &cache.objects(cls)[n + batch];
  for (std::uint64_t at = first + std::uint64_t{i} * size; taken < batch && i < objects; ++i, at += size) {
    // Acquire: pairs with the release in return_locked(). It may be one that others have returned and we have not counted; then one
    // that we have counted is left for that.
    if (states[i].load(std::memory_order_acquire) != kFree) continue;
    states[i].store(mine, std::memory_order_relaxed);
    *--into = CachedObject{at, first_state + i, slab_index + 1};
    ++taken;
  }
  base::crash_point("refill.taken");
  n += taken;
  s.hint = static_cast<std::uint16_t>(i);
  s.free.add(static_cast<std::uint16_t>(-taken));
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
    bool taken = false;
    // From several of the slabs where each has few objects; only what the lock is worth.
    while (cache.count(cls) < cache.room(cls) / 4 + 1 && take_back_locked(cache, cls)) {
      take_objects(cache.own[cls] - 1, cache, cls);
      taken = true;
    }
    if (taken) return {};
    std::uint32_t link = h.partial[cls];
    while (link != 0 && !reaches(slabs_[link - 1].region())) link = slabs_[link - 1].list_next;
    if (link != 0) {
      Slab& s = slabs_[link - 1];
      if (h.tight != 0) {
        h.tight.add(~std::uint32_t{0});
      } else {
        unlink_listed(link - 1);
        s.keeper = static_cast<std::uint16_t>(slot);
        if (s.free == s.objects) {
          cache.empty[cls].add(1);
          // Nobody holds or caches anything of it.
          if (h.sharing[cls] <= kShareAbove) s.home = Slab::pack(heap, slot);
        }
        link_listed(link - 1);
        base::crash_point("refill.kept");
      }
      take_objects(link - 1, cache, cls);
      return {};
    }
    const bool biased = h.sharing[cls] <= kShareAbove;
    if (new_slab_locked(slot, heap, cls, biased, metadata_full, any_region) != shared::IndexList::kNone) {
      take_objects(cache.own[cls] - 1, cache, cls);
      return {};
    }
    if (!any_region) return EXTMEM_ERROR(ENOTBLK, "no region of the heap is large enough for slabs");
    if (round == 0) {
      EXTMEM_TRY_VOID(flush_all_locked(slot, heap, true));
      h.tight = kTight;
    }
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
  s.share();  // its thread keeps it
  base::crash_point("revoke.shared");
  if (cache != nullptr) {
    const std::uint32_t cls = s.cls();
    std::uint16_t whole = cache->whole_patience[cls];
    if (cache->patience[cls] <= kNextPatience && whole < kMostPatience)  // it was biased again too early
      whole = static_cast<std::uint16_t>(whole * 2);
    cache->whole_patience[cls] = whole;
    cache->patience[cls] = whole;
    resume(*cache);
  }
  h.sharing[s.cls()] = std::min(h.sharing[s.cls()] + share_step(s.cls()), most_shared(s.cls()));
  return {};
}

/// Biases a shared slab that the thread keeps to it again, because it has freed so many of its own objects lately.
/// A thread that is freeing another object of it at this moment finds out: see free_shared().
void Core::rebias(std::uint32_t slot, ThreadCache& cache, std::uint32_t slab_index) noexcept {
  Slab& s = slabs_[slab_index];
  const HeapGuard guard(*this, slot, cache.heap);
  if (!guard.held()) return;
  // Looked at again: memory may have run short meanwhile.
  if (cache.used == 0 || s.objects == 0 || s.heap() != cache.heap || s.keeper != slot) return;
  s.home = Slab::pack(cache.heap, slot);
  base::crash_point("rebias.owned");
  // Pairs with the sequentially consistent compare-and-swap and load of who frees by compare-and-swap: either he sees this, or our
  // next free sees his state.
  std::atomic_thread_fence(std::memory_order_seq_cst);
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
      count_tag_locked(slot, heap, *record, -static_cast<std::int64_t>(s.size()), -1);
    }
  }
  note_out(h, -static_cast<std::int64_t>(s.size()));
  const CachedObject object{0, state_index, slab_index + 1};
  (void)return_locked(slot, slot, &object, 1);
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
    const std::uint32_t size = s.size();
    const std::uint32_t first_state = s.first_state;
    // A shared slab may be biased again meanwhile; or, while a *second* free of an object looks at it, be released and made anew.
    const auto changed = [&] {
      // Sequentially consistent: pairs with the fence in rebias(), as in free_shared().
      const std::uint32_t home = s.home.atomic().load(std::memory_order_seq_cst);
      return !slab_covers(index, region, page) || s.first != first || s.size() != size ||
             s.first_state != first_state || home >> 16 != owner;
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
    const bool own = s.keeper == slot;
    if (own && owner == 0 && cache.patience[cls] == 0) {
      cache.patience[cls] = kNextPatience;
      cache.gate.leave();
      rebias(slot, cache, index);
      continue;
    }
    // Of a slab that it does not keep, a thread hands no object out again: see Slab.
    const bool goes_out = !own && kSizeClasses[cls].outbox != 0;
    const std::uint32_t n = goes_out ? cache.out_counts[cls].get() : cache.count(cls);
    if (n >= (goes_out ? kSizeClasses[cls].outbox : cache.room(cls))) {
      cache.gate.leave();
      EXTMEM_TRY_VOID(goes_out ? flush_outbox(slot, cache, cls) : flush_class(slot, cache, cls));
      continue;
    }
    if (owner == 0) {
      // The one word that decides between racing frees. The winner hands the object on. Sequentially consistent: see changed().
      std::uint16_t expected = seen;
      if (!states_[state_index].compare_exchange_strong(expected, cached_by(slot),
                                                        std::memory_order_seq_cst)) {
        return refuse(
            EXTMEM_ERROR(EALREADY, "double free: another thread has freed this object at the same time"));
      }
      if (changed() || states_[state_index].load(std::memory_order_relaxed) != cached_by(slot)) {
        // The slab is another thread's now, or the word we took another object's: give it back, unless its owner has freed it
        // since; and look again.
        std::uint16_t ours = cached_by(slot);
        (void)states_[state_index].compare_exchange_strong(ours, seen, std::memory_order_acq_rel);
        cache.gate.leave();
        continue;
      }
      if (own) cache.patience[cls].add(static_cast<std::uint16_t>(-1));
    } else {
      states_[state_index].store(cached_by(slot), std::memory_order_relaxed);
    }
    (goes_out ? cache.outbox(cls) : cache.objects(cls))[n] =
        CachedObject{address(region, offset), state_index, index + 1};
    if (goes_out) {
      cache.out_counts[cls] = static_cast<std::uint16_t>(n + 1);
    } else {
      cache.set_count(cls, n + 1);
    }
    if (delta != nullptr) {
      delta->bytes.add(-static_cast<std::int64_t>(size));
      delta->count.add(-1);
    }
    cache.gate.leave();
    return {};
  }
}

}  // namespace extmem::alloc
