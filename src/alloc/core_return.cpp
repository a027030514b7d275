// Small objects: how they return from magazines and outboxes to their slabs, and slabs to the pages.
//
// To a slab without keeper, or of one's own: counted at once. To another thread's: its state words say that the objects are
// free, and the slab is noted in its keeper's list; the keeper counts them when it has nothing else (take_back_locked). So it is not
// disturbed, and needs no lock to hand out the rest. Should a keeper never come, all that its slabs have is taken back where memory
// runs short; and before that, once several of them are wholly free (sweep_locked).
#include <algorithm>

#include "alloc/core.hpp"
#include "alloc/heap_guard.hpp"
#include "base/crash_point.hpp"

namespace extmem::alloc {

namespace {
/// keep_empty() of a keeper that sleeps, as far as others know it. To look it has to be paused, which must pay off.
constexpr std::uint32_t keep_wholly(std::uint32_t cls) noexcept { return std::max(8u, keep_empty(cls)); }
/// Slabs with free objects, it among them, up to which one without keeper stays that is wholly free.
constexpr std::uint32_t keep_shared(std::uint32_t cls) noexcept {
  return kSizeClasses[cls].size > kLastingSize ? 4 : 1;
}
}  // namespace

// ---- lists of slabs with free objects ----------------------------------------------------------------------

base::Relaxed<std::uint32_t>& Core::list_of(const Slab& s) const noexcept {
  if (s.keeper != 0) {
    if (ThreadCache* cache = cache_of(s.keeper, s.heap()); cache != nullptr) return cache->own[s.cls()];
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
  s.flags = s.flags & static_cast<std::uint16_t>(~kSlabListed);
}

/// Counts objects whose states were set to kFree, the lowest of them at `lowest_state`.
/// Requires: the slab is the caller's (it keeps it and is busy, or has the heap's lock and the keeper, if any, is itself or paused).
void Core::note_returned(std::uint32_t slab_index, std::uint32_t count, std::uint32_t lowest_state) noexcept {
  Slab& s = slabs_[slab_index];
  s.free.add(static_cast<std::uint16_t>(count));
  const std::uint32_t number = lowest_state - s.first_state;
  if (number < s.hint) s.hint = static_cast<std::uint16_t>(number);
  const std::uint32_t flags = s.flags;
  if ((flags & (kSlabListed | kSlabDraining)) == 0) link_listed(slab_index);
  if (s.free == s.objects && s.keeper != 0) {
    if (ThreadCache* cache = cache_of(s.keeper, s.heap()); cache != nullptr) cache->empty[s.cls()].add(1);
  }
}

/// The same, whoever keeps the slab. `standing`: a slot whose cache the caller may change. Requires: the heap's lock.
/// Returns whose wholly free slabs are too many now (sweep_locked); 0: nobody's.
std::uint32_t Core::give_back_locked(std::uint32_t slab_index, std::uint32_t count,
                                     std::uint32_t lowest_state, std::uint32_t standing) noexcept {
  Slab& s = slabs_[slab_index];
  const std::uint32_t cls = s.cls();
  const std::uint32_t keeper = s.keeper;
  ThreadCache* const cache = keeper != 0 && keeper != standing ? cache_of(keeper, s.heap()) : nullptr;
  if (cache == nullptr) {
    // What a thread leaves behind that had no free object.
    if (keeper != 0 && cache_of(keeper, s.heap()) == nullptr) s.abandon();
    note_returned(slab_index, count, lowest_state);
    return 0;
  }
  const std::uint32_t number = lowest_state - s.first_state;
  if (s.returned == 0) {
    s.lowest = static_cast<std::uint16_t>(number);
    s.returned_next = cache->returned[cls];
    cache->returned[cls] = slab_index + 1;
    base::crash_point("return.listed");
  } else if (number < (s.lowest & (kWholly - 1u))) {
    s.lowest = static_cast<std::uint16_t>((s.lowest & kWholly) | number);
  }
  s.returned.add(static_cast<std::uint16_t>(count));
  // The keeper may be taking objects at this moment: then this is a guess, which sweep_locked looks at again.
  if ((s.lowest & kWholly) != 0 || s.all_free() < s.objects) return 0;
  s.lowest = s.lowest | kWholly;
  cache->wholly[cls].add(1);
  return cache->wholly[cls] > keep_wholly(cls) ? keeper : 0;
}

/// Counts what others have returned to one of the thread's slabs of this class, which then has free objects. False: nothing.
/// Requires: the heap's lock; the cache is the caller's own, or paused.
bool Core::take_back_locked(ThreadCache& cache, std::uint32_t cls) noexcept {
  if (cache.returned[cls] == 0) return false;
  // Not the one that was noted last, if there is another: others return more to it at this moment, beside what we would hand out.
  Slab& last = slabs_[cache.returned[cls] - 1];
  base::Relaxed<std::uint32_t>& place = last.returned_next != 0 ? last.returned_next : cache.returned[cls];
  const std::uint32_t link = place;
  Slab& s = slabs_[link - 1];
  place = s.returned_next.get();
  if ((s.lowest & kWholly) != 0 && cache.wholly[cls] != 0)
    cache.wholly[cls].add(static_cast<std::uint16_t>(-1));
  const std::uint32_t count = s.returned;
  s.returned = 0;
  base::crash_point("return.unlisted");
  note_returned(link - 1, count, s.first_state + (s.lowest & (kWholly - 1u)));
  return true;
}

/// Returns a thread's wholly free slabs of a class to the pages. Requires: the heap's lock; nobody is paused.
void Core::sweep_locked(std::uint32_t slot, std::uint32_t keeper, std::uint32_t heap,
                        std::uint32_t cls) noexcept {
  ThreadCache* const cache = cache_of(keeper, heap);
  if (cache == nullptr) return;
  const auto stands = pause(slot, *cache);
  if (!stands) cache->wholly[cls] = 0;  // its process is stopped: they stay, until there are as many again
  if (!stands || !*stands) return;      // or it was dead: they are returned
  while (take_back_locked(*cache, cls)) {
  }
  release_empty_locked(slot, *cache, cls, keep_empty(cls) / 2);
  resume(*cache);
}

/// Returns objects that the thread of slot `standing`, the caller or paused, caches. Requires: the heap's lock.
/// Returns as give_back_locked.
std::uint32_t Core::return_locked(std::uint32_t slot, std::uint32_t standing, const CachedObject* objects,
                                  std::uint32_t count) noexcept {
  std::uint32_t sweep = 0;
  for (std::uint32_t i = 0; i < count;) {
    // Neighbours in a magazine mostly come from one slab: its record is touched once for all of them.
    const std::uint32_t link = objects[i].slab;
    std::uint32_t returned = 0;
    std::uint32_t lowest = ~std::uint32_t{0};
    for (; i < count && objects[i].slab == link; ++i, ++returned) {
      // Release: pairs with the acquire in take_objects(), by which the keeper may find it without the lock.
      states_[objects[i].state].store(kFree, std::memory_order_release);
      lowest = std::min(lowest, objects[i].state);
    }
    base::crash_point("return.freed");
    Slab& s = slabs_[link - 1];
    if (const std::uint32_t keeper = give_back_locked(link - 1, returned, lowest, standing); keeper != 0)
      sweep = keeper;
    if (s.keeper != 0 || s.free != s.objects) continue;
    // One that nobody keeps became wholly free: it stays when few of its class are left to take from.
    std::uint32_t left = keep_shared(s.cls()) + 1;
    for (std::uint32_t next = heaps_[s.heap()].partial[s.cls()]; next != 0 && left != 0;
         next = slabs_[next - 1].list_next)
      --left;
    if ((s.flags & kSlabDraining) == 0 && left != 0) continue;
    if (s.flags & kSlabListed) unlink_listed(link - 1);
    release_slab_locked(slot, link - 1);
  }
  return sweep;
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
    if (s.keeper != slot) {
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
  const std::uint32_t sweep = return_locked(slot, slot, objects, now);
  const std::uint32_t count = cache.count(cls);
  std::copy(objects + now, objects + count, objects);
  cache.set_count(cls, count - now);
  note_cached_out(cache, -static_cast<std::int64_t>(std::uint64_t{now} * kSizeClasses[cls].size));
  if (sweep != 0) sweep_locked(slot, sweep, cache.heap, cls);
  return {};
}

Result<void> Core::flush_outbox(std::uint32_t slot, ThreadCache& cache, std::uint32_t cls) noexcept {
  const HeapGuard guard(*this, slot, cache.heap);
  if (!guard.held()) {
    return guard.refused(EXTMEM_ERROR(
        EDEADLK, "this thread holds the heap's lock: do not free into a heap inside a walk over it"));
  }
  if (const std::uint32_t sweep = empty_outbox_locked(slot, cache, cls); sweep != 0)
    sweep_locked(slot, sweep, cache.heap, cls);
  return {};
}

/// Returns what is in an outbox. Requires: the heap's lock; the cache is the caller's own, or paused. Returns as give_back_locked.
std::uint32_t Core::empty_outbox_locked(std::uint32_t slot, ThreadCache& cache, std::uint32_t cls) noexcept {
  const std::uint32_t n = cache.out_counts[cls];
  if (n == 0) return 0;
  const std::uint32_t sweep = return_locked(slot, cache.slot, cache.outbox(cls), n);
  cache.out_counts[cls] = 0;
  note_cached_out(cache, -static_cast<std::int64_t>(std::uint64_t{n} * kSizeClasses[cls].size));
  return sweep;
}

}  // namespace extmem::alloc
