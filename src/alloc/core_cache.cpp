// Thread caches: making, pausing, flushing and dropping them.
#include "alloc/core.hpp"

namespace extmem::alloc {

Result<ThreadCache*> Core::make_cache(std::uint32_t slot, std::uint32_t heap) noexcept {
  HeapCore& h = heaps_[heap];
  const shared::LockGuard guard(h.lock, slot, process_shared_);
  if (!guard.held()) {
    return EXTMEM_ERROR(EDEADLK, "this thread holds the heap's lock: do not use a heap inside a walk over it");
  }
  std::uint32_t index;
  {
    auto tx = transaction(slot);
    const shared::LockGuard meta(roots_->small.lock, slot, process_shared_);
    if (auto& spare = slots_[slot].spare_caches; spare != 0) {
      index = spare - 1;
      tx.set(spare, caches_[index].next);
    } else {
      index = roots_->cache_list.take(tx, [&](std::uint32_t i) -> auto& { return caches_[i].next; });
    }
    if (index == shared::IndexList::kNone) {
      return EXTMEM_ERROR(ENOSPC, "no room for another thread's cache: use fewer heaps per thread or raise max_threads");
    }
    tx.commit();
  }
  ThreadCache& cache = caches_[index];
  cache.gate.reset(has_membarrier_);
  cache.slot = slot;
  cache.heap = heap;
  cache.home = Slab::pack(heap, slot);
  cache.held = held_by(kHolderUntagged);
  cache.cached = cached_by(slot);
  cache.out_delta = 0;
  for (std::uint32_t c = 0; c < kClasses; ++c) {
    cache.stacks[c][0] = CachedObject{};
    cache.set_count(c, 0);
    cache.magazines[c].limit = ThreadCache::place(c, kSizeClasses[c].capacity);
    cache.own[c] = 0;
    cache.empty[c] = 0;
  }
  for (TagDelta& delta : cache.deltas) delta.record = 0;
  cache.next = h.first_cache;
  cache.used = 1;
  h.first_cache = index + 1;
  h.caches.add(1);
  if (h.caches > h.most_caches) h.most_caches = h.caches.get();
  cache_rows_[std::uint64_t{slot} * geometry_.max_heaps + heap] = index + 1;
  return &cache;
}

void Core::detach_cache_locked(std::uint32_t slot, ThreadCache& cache) noexcept {
  HeapCore& h = heaps_[cache.heap];
  flush_magazines_locked(slot, cache);
  unbias_locked(slot, cache);
  // Slabs without a free object are in no list, yet may be biased to the slot, which another thread will get: it
  // then simply is their owner.
  spill_tags_locked(cache);
  note_out(h, cache.out_delta);
  cache.out_delta = 0;
  const auto index = static_cast<std::uint32_t>(&cache - caches_);
  if (h.first_cache == index + 1) {
    h.first_cache = cache.next.get();
  } else {
    for (std::uint32_t link = h.first_cache; link != 0; link = caches_[link - 1].next) {
      if (caches_[link - 1].next == index + 1) {
        caches_[link - 1].next = cache.next.get();
        break;
      }
    }
  }
  h.caches.add(~std::uint32_t{0});
  cache.used = 0;
  cache_rows_[std::uint64_t{cache.slot} * geometry_.max_heaps + cache.heap] = 0;
}

void Core::put_cache(std::uint32_t slot, ThreadCache& cache) noexcept {
  const auto index = static_cast<std::uint32_t>(&cache - caches_);
  auto tx = transaction(slot);
  const shared::LockGuard meta(roots_->small.lock, slot, process_shared_);
  if (cache.slot == slot) {
    roots_->cache_list.put(tx, index, [&](std::uint32_t i) -> auto& { return caches_[i].next; });
  } else {
    auto& spare = slots_[cache.slot].spare_caches;
    tx.set(cache.next, spare);
    tx.set(spare, index + 1);
  }
  tx.commit();
}

void Core::drop_spare_caches(std::uint32_t slot) noexcept {
  auto& spare = slots_[slot].spare_caches;
  const shared::LockGuard meta(roots_->small.lock, slot, process_shared_);
  while (spare != 0) {
    const std::uint32_t index = spare - 1;
    auto tx = transaction(slot);
    tx.set(spare, caches_[index].next);
    roots_->cache_list.put(tx, index, [&](std::uint32_t i) -> auto& { return caches_[i].next; });
    tx.commit();
  }
}

void Core::drop_cache(std::uint32_t slot, ThreadCache& cache) noexcept {
  HeapCore& h = heaps_[cache.heap];
  {
    const shared::LockGuard guard(h.lock, slot, process_shared_);
    detach_cache_locked(slot, cache);
  }
  put_cache(slot, cache);
}

void Core::drop_caches_locked(std::uint32_t slot, std::uint32_t heap) noexcept {
  HeapCore& h = heaps_[heap];
  while (h.first_cache != 0) {
    ThreadCache& cache = caches_[h.first_cache - 1];
    const bool own = cache.slot == slot;
    if (!own) pause(cache);
    detach_cache_locked(slot, cache);
    if (!own) resume(cache);  // before its owner can take the record again: the gate is reset then
    put_cache(slot, cache);
  }
}

// ---- the handshake -----------------------------------------------------------------------------------------

void Core::pause(ThreadCache& cache) noexcept {
  cache.gate.ask();
  shared::Handshake::fence(has_membarrier_, process_shared_);
  cache.gate.wait();
}

void Core::resume(ThreadCache& cache) noexcept { cache.gate.resume(process_shared_); }

void Core::pause_all(std::uint32_t slot, HeapCore& h) noexcept {
  bool others = false;
  for (std::uint32_t link = h.first_cache; link != 0; link = caches_[link - 1].next) {
    if (caches_[link - 1].slot == slot) continue;
    caches_[link - 1].gate.ask();
    others = true;
  }
  if (!others) return;
  shared::Handshake::fence(has_membarrier_, process_shared_);
  for (std::uint32_t link = h.first_cache; link != 0; link = caches_[link - 1].next) {
    if (caches_[link - 1].slot != slot) caches_[link - 1].gate.wait();
  }
}

void Core::resume_all(std::uint32_t slot, HeapCore& h) noexcept {
  for (std::uint32_t link = h.first_cache; link != 0; link = caches_[link - 1].next) {
    if (caches_[link - 1].slot != slot) resume(caches_[link - 1]);
  }
}

// ---- flushing ----------------------------------------------------------------------------------------------

void Core::note_out(HeapCore& h, std::int64_t bytes) noexcept {
  h.out_bytes.fetch_add(bytes, std::memory_order_relaxed);
  note_peak(h);
}

// Two threads may each miss what the other adds at the same instant: that is part of the stated error of peaks.
void Core::note_peak(HeapCore& h) noexcept {
  const std::int64_t now = h.out_bytes.load(std::memory_order_relaxed) + static_cast<std::int64_t>(h.span_pages_bytes.get());
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
    const std::uint32_t n = cache.count(cls);
    if (n == 0) continue;
    for (std::uint32_t i = 0; i < n; ++i) return_locked(slot, cache.objects(cls)[i]);
    cache.set_count(cls, 0);
    note_cached_out(cache, -static_cast<std::int64_t>(std::uint64_t{n} * kSizeClasses[cls].size));
  }
}

void Core::release_empty_locked(std::uint32_t slot, ThreadCache& cache, std::uint32_t cls, std::uint32_t keep) noexcept {
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
  for (std::uint32_t cls = 0; cls < kClasses; ++cls) {
    release_empty_locked(slot, cache, cls, 0);
    while (cache.own[cls] != 0) {
      const std::uint32_t index = cache.own[cls] - 1;
      unlink_listed(index);
      slabs_[index].share();
      link_listed(index);
    }
  }
}

void Core::flush_paused(std::uint32_t slot, std::uint32_t heap, bool unbias) noexcept {
  HeapCore& h = heaps_[heap];
  for (std::uint32_t link = h.first_cache; link != 0; link = caches_[link - 1].next) {
    ThreadCache& cache = caches_[link - 1];
    flush_magazines_locked(slot, cache);
    if (unbias) {
      unbias_locked(slot, cache);
    } else {
      for (std::uint32_t cls = 0; cls < kClasses; ++cls) release_empty_locked(slot, cache, cls, 0);
    }
  }
  for (std::uint32_t cls = 0; cls < kClasses; ++cls) {  // shared slabs that are wholly free
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

void Core::flush_all_locked(std::uint32_t slot, std::uint32_t heap, bool unbias) noexcept {
  pause_all(slot, heaps_[heap]);
  flush_paused(slot, heap, unbias);
  resume_all(slot, heaps_[heap]);
}

}  // namespace extmem::alloc
