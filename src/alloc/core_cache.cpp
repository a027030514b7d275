// Thread caches: making, pausing, flushing and dropping them.
#include <algorithm>

#include "alloc/chains.hpp"
#include "alloc/core.hpp"
#include "alloc/heap_guard.hpp"
#include "base/crash_point.hpp"

namespace extmem::alloc {

Result<ThreadCache*> Core::make_cache(std::uint32_t slot, std::uint32_t heap) noexcept {
  HeapCore& h = heaps_[heap];
  const HeapGuard guard(*this, slot, heap);
  if (!guard.held()) {
    return guard.refused(
        EXTMEM_ERROR(EDEADLK, "this thread holds the heap's lock: do not use a heap inside a walk over it"));
  }
  const shared::LockGuard meta(roots_->small_lock, slot, peers_);
  if (!meta.held()) return meta.refused(EXTMEM_ERROR(EDEADLK, "the metadata's lock is this thread's own"));
  auto tx = transaction(slot);
  const auto link = [&](std::uint32_t i) -> auto& { return caches_[i].next; };
  std::uint32_t index;
  if (auto& spare = slots_[slot].spare_caches; spare != 0) {
    index = spare - 1;
    tx.set(spare, caches_[index].next);
  } else {
    index = roots_->cache_list.take(tx, link);
    if (index == shared::IndexList::kNone || !ground_.ensure_object(caches_[index])) {
      return EXTMEM_ERROR(
          ENOSPC, "no room for another thread's cache: use fewer heaps per thread or raise max_threads");
    }
  }
  ThreadCache& cache = caches_[index];
  cache.gate.reset(has_membarrier_);
  cache.slot = slot;
  cache.heap = heap;
  cache.home = h.exact != 0 ? 0 : Slab::pack(heap, slot);
  cache.held = held_by(untagged_);
  cache.cached = cached_by(slot);
  cache.out_delta = 0;
  if (h.exact != 0) make_spans_locked(cache);
  for (std::uint32_t c = 0; h.exact == 0 && c < kClasses; ++c) {
    cache.stacks[c][0] = CachedObject{};
    cache.set_count(c, 0);
    cache.out_counts[c] = 0;
    cache.patience[c] = cache.whole_patience[c] = kPatience;
    cache.returned[c] = 0;
    cache.wholly[c] = 0;
    cache.magazines[c].limit = ThreadCache::place(c, std::min(kFirstRoom, kSizeClasses[c].capacity));
    cache.own[c] = 0;
    cache.empty[c] = 0;
  }
  for (TagDelta& delta : cache.deltas) delta.record = 0;
  tx.set(cache.next, h.first_cache);
  tx.set(cache.used, 1);
  tx.set(h.first_cache, index + 1);
  tx.add(h.caches, 1);
  tx.set(cache_rows_[std::uint64_t{slot} * geometry_.max_heaps + heap], index + 1);
  tx.commit();
  if (h.caches > h.most_caches) h.most_caches = h.caches.get();
  if (h.exact != 0) open_spans_locked(cache);
  return &cache;
}

/// Takes the record of an empty cache out of the heap and gives it away. Requires: the heap's lock.
/// Errors: ETIMEDOUT a stopped process keeps the metadata's lock: the cache stays, empty, and whoever comes next tries again.
Result<void> Core::unlink_cache_locked(std::uint32_t slot, ThreadCache& cache) noexcept {
  HeapCore& h = heaps_[cache.heap];
  const auto index = static_cast<std::uint32_t>(&cache - caches_);
  const shared::LockGuard meta(roots_->small_lock, slot, peers_);
  if (!meta.held()) return meta.refused(EXTMEM_ERROR(EDEADLK, "the metadata's lock is this thread's own"));
  auto tx = transaction(slot);
  auto* link = &h.first_cache;
  while (*link != index + 1 && *link != 0) link = &caches_[*link - 1].next;
  if (*link == index + 1) {
    tx.set(*link, cache.next);
    tx.add(h.caches, ~std::uint32_t{0});
  }
  tx.set(cache.used, 0);
  tx.set(cache_rows_[std::uint64_t{cache.slot} * geometry_.max_heaps + cache.heap], 0);
  // A living owner may be about to look at its record: then only its own thread uses it again.
  if (cache.slot == slot || (peers_.all != nullptr && peers_.all->slot_dead(cache.slot))) {
    roots_->cache_list.put(
        tx, index, [&](std::uint32_t i) -> auto& { return caches_[i].next; });
  } else {
    auto& spare = slots_[cache.slot].spare_caches;
    tx.set(cache.next, spare);
    tx.set(spare, index + 1);
  }
  tx.commit();
  return {};
}

void Core::empty_cache_locked(std::uint32_t slot, ThreadCache& cache) noexcept {
  if (heaps_[cache.heap].exact != 0) {
    return_spans_locked(slot, cache);
    close_spans_locked(cache);
  } else {
    flush_magazines_locked(slot, cache);
    base::crash_point("cache.flushed");
    unbias_locked(slot, cache);
    base::crash_point("cache.unbiased");
  }
  // Slabs without a free object are in no list, yet may be biased to the slot, which another thread will get: it
  // then simply is their owner.
  spill_tags_locked(cache);
  note_out(heaps_[cache.heap], cache.out_delta);
  cache.out_delta = 0;
}

bool Core::drop_spare_caches(std::uint32_t slot, std::uint32_t of) noexcept {
  auto& spare = slots_[of].spare_caches;
  const shared::LockGuard meta(roots_->small_lock, slot, peers_);
  if (!meta.held()) return false;
  while (spare != 0) {
    const std::uint32_t index = spare - 1;
    auto tx = transaction(slot);
    tx.set(spare, caches_[index].next);
    roots_->cache_list.put(
        tx, index, [&](std::uint32_t i) -> auto& { return caches_[i].next; });
    tx.commit();
  }
  return true;
}

bool Core::drop_cache(std::uint32_t slot, ThreadCache& cache) noexcept {
  const HeapGuard guard(*this, slot, cache.heap);
  if (!guard.held()) return false;
  empty_cache_locked(slot, cache);
  return unlink_cache_locked(slot, cache).ok();
}

Result<void> Core::drop_caches_paused(std::uint32_t slot, std::uint32_t heap) noexcept {
  HeapCore& h = heaps_[heap];
  while (h.first_cache != 0) {
    ThreadCache& cache = caches_[h.first_cache - 1];
    empty_cache_locked(slot, cache);
    // Before the record is given away: its owner may take it again at once, for another heap.
    if (cache.slot != slot) resume(cache);
    EXTMEM_TRY_VOID(unlink_cache_locked(slot, cache));
  }
  return {};
}

// ---- the handshake -----------------------------------------------------------------------------------------

Result<void> Core::enter(std::uint32_t slot, ThreadCache& cache) noexcept {
  while (!cache.gate.enter(peers_.shared)) {
    // Paused for long. If the pauser has died, its lock passes to us, and we resume everybody, us included.
    const HeapGuard guard(*this, slot, cache.heap);
    if (!guard.held())
      return guard.refused(EXTMEM_ERROR(EDEADLK, "this thread holds the heap's lock already"));
  }
  cache.entered.store(cache.entered.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
  // Whoever sees a store of this operation sees the count too, if he reads that later.
  std::atomic_thread_fence(std::memory_order_release);
  return {};
}

Result<bool> Core::pause(std::uint32_t slot, ThreadCache& cache) noexcept {
  cache.gate.ask();
  shared::Handshake::fence(has_membarrier_, peers_.shared);
  switch (cache.gate.wait(peers_, cache.slot)) {
    case shared::Handshake::Stand::still:
      return true;
    case shared::Handshake::Stand::dead:
      EXTMEM_TRY_VOID(bury_cache_locked(slot, cache));
      return false;
    case shared::Handshake::Stand::stuck:
      break;
  }
  resume(cache);
  return shared::stuck_error(peers_, cache.slot);
}

void Core::resume(ThreadCache& cache) noexcept { cache.gate.resume(peers_.shared); }

Result<void> Core::pause_all(std::uint32_t slot, HeapCore& h) noexcept {
  bool others = false;
  (void)for_each_cache(*this, h, [&](ThreadCache& cache) {
    if (cache.slot == slot) return;
    cache.gate.ask();
    others = true;
  });
  if (!others) return {};
  base::crash_point("pause.asked");
  shared::Handshake::fence(has_membarrier_, peers_.shared);
  Error stuck;
  (void)for_each_cache(*this, h, [&](ThreadCache& cache) {
    if (stuck || cache.slot == slot) return;
    switch (cache.gate.wait(peers_, cache.slot)) {
      case shared::Handshake::Stand::still:
        break;
      case shared::Handshake::Stand::dead:
        if (auto buried = bury_cache_locked(slot, cache); !buried) stuck = buried.error();
        break;
      case shared::Handshake::Stand::stuck:
        stuck = shared::stuck_error(peers_, cache.slot);
        break;
    }
  });
  if (!stuck) return {};
  resume_all(slot, h);
  return stuck;
}

void Core::resume_all(std::uint32_t slot, HeapCore& h) noexcept {
  (void)for_each_cache(*this, h, [&](ThreadCache& cache) {
    if (cache.slot != slot) resume(cache);
  });
}

// ---- flushing ----------------------------------------------------------------------------------------------

void Core::note_out(HeapCore& h, std::int64_t bytes) noexcept {
  h.out_bytes.fetch_add(bytes, std::memory_order_relaxed);
  note_peak(h);
}

// Two threads may each miss what the other adds at the same instant: that is part of the stated error of peaks.
void Core::note_peak(HeapCore& h) noexcept {
  const std::int64_t now =
      h.out_bytes.load(std::memory_order_relaxed) + static_cast<std::int64_t>(h.span_pages_bytes.get());
  std::int64_t peak = h.out_peak.get();
  while (now > peak && !h.out_peak.atomic().compare_exchange_weak(peak, now, std::memory_order_relaxed)) {
  }
}

void Core::note_cached_out(ThreadCache& cache, std::int64_t bytes) noexcept {
  const std::int64_t delta = cache.out_delta + bytes;
  cache.out_delta = delta;
  if (delta > kSpillBytes || delta < -kSpillBytes) {
    note_out(heaps_[cache.heap], delta);
    cache.out_delta = 0;
  }
}

void Core::flush_magazines_locked(std::uint32_t slot, ThreadCache& cache) noexcept {
  for (std::uint32_t cls = 0; cls < kClasses; ++cls) {
    (void)empty_outbox_locked(slot, cache, cls);
    const std::uint32_t n = cache.count(cls);
    if (n == 0) continue;
    (void)return_locked(slot, cache.slot, cache.objects(cls), n);
    cache.set_count(cls, 0);
    note_cached_out(cache, -static_cast<std::int64_t>(std::uint64_t{n} * kSizeClasses[cls].size));
  }
}

void Core::release_empty_locked(std::uint32_t slot, ThreadCache& cache, std::uint32_t cls,
                                std::uint32_t keep) noexcept {
  for (std::uint32_t link = cache.own[cls]; link != 0 && cache.empty[cls] > keep;) {
    Slab& s = slabs_[link - 1];
    const std::uint32_t next = s.list_next;
    if (s.free == s.objects) {
      cache.empty[cls].add(~std::uint32_t{0});
      unlink_listed(link - 1);
      release_slab_locked(slot, link - 1);
    }
    link = next;
  }
}

void Core::unbias_locked(std::uint32_t slot, ThreadCache& cache) noexcept {
  const HeapCore& h = heaps_[cache.heap];
  for (std::uint32_t cls = 0; cls < kClasses; ++cls) {
    while (take_back_locked(cache, cls)) {
    }
    // As many as there were threads stay for the next ones, which would make them anew, elsewhere, and touch other pages of
    // them; whoever needs their pages flushes.
    std::uint32_t keep = std::min(keep_empty(cls), h.most_caches.get());
    for (std::uint32_t link = h.partial[cls]; link != 0 && keep != 0; link = slabs_[link - 1].list_next)
      --keep;
    release_empty_locked(slot, cache, cls, keep);
    while (cache.own[cls] != 0) {
      const std::uint32_t index = cache.own[cls] - 1;
      unlink_listed(index);
      slabs_[index].abandon();
      link_listed(index);
    }
    cache.empty[cls] = 0;
  }
}

void Core::flush_paused(std::uint32_t slot, std::uint32_t heap, bool unbias) noexcept {
  HeapCore& h = heaps_[heap];
  if (h.exact != 0) return flush_spans_paused(slot, heap);
  for (std::uint32_t link = h.first_cache; link != 0; link = caches_[link - 1].next) {
    flush_magazines_locked(slot, caches_[link - 1]);
  }
  for (std::uint32_t link = h.first_cache; link != 0; link = caches_[link - 1].next) {
    ThreadCache& cache = caches_[link - 1];
    if (unbias) {
      unbias_locked(slot, cache);
      continue;
    }
    for (std::uint32_t cls = 0; cls < kClasses; ++cls) {
      while (take_back_locked(cache, cls)) {
      }
      release_empty_locked(slot, cache, cls, 0);
    }
  }
  for (std::uint32_t cls = 0; cls < kClasses; ++cls) {  // slabs without keeper that are wholly free
    for (std::uint32_t link = h.partial[cls]; link != 0;) {
      const std::uint32_t index = link - 1;
      link = slabs_[index].list_next;
      if (slabs_[index].free == slabs_[index].objects) {
        unlink_listed(index);
        release_slab_locked(slot, index);
      }
    }
  }
}

Result<void> Core::flush_all_locked(std::uint32_t slot, std::uint32_t heap, bool unbias) noexcept {
  EXTMEM_TRY_VOID(pause_all(slot, heaps_[heap]));
  flush_paused(slot, heap, unbias);
  resume_all(slot, heaps_[heap]);
  return {};
}

}  // namespace extmem::alloc
