// Tags: live bytes and counts per (heap, holder). Threads collect deltas; records are exact once deltas are added.
#include <algorithm>

#include "alloc/core.hpp"
#include "alloc/heap_guard.hpp"

namespace extmem::alloc {

TagRecord* Core::find_tag_locked(HeapCore& h, std::uint16_t holder) const noexcept {
  const std::uint32_t high = tags_high();
  std::uint32_t left = high;
  for (std::uint32_t link = h.tags[holder % kTagBuckets]; link != 0 && link <= high && left != 0;
       link = tags_[link - 1].next, --left) {
    if (tags_[link - 1].holder == holder) return &tags_[link - 1];
  }
  return nullptr;
}

TagRecord* Core::make_tag_locked(std::uint32_t slot, HeapCore& h, std::uint16_t holder) noexcept {
  if (TagRecord* found = find_tag_locked(h, holder); found != nullptr) return found;
  const shared::LockGuard meta(roots_->small_lock, slot, peers_);
  if (!meta.held()) return nullptr;
  auto tx = transaction(slot);
  const std::uint32_t index = roots_->tag_list.take(
      tx, [&](std::uint32_t i) -> auto& { return tags_[i].next; });
  if (index == shared::IndexList::kNone || !ground_.ensure_object(tags_[index])) return nullptr;
  TagRecord& record = tags_[index];
  record.holder = holder;
  record.bytes = 0;
  record.count = 0;
  record.peak = 0;
  tx.set(record.next, h.tags[holder % kTagBuckets]);
  tx.set(h.tags[holder % kTagBuckets], index + 1);
  tx.commit();
  return &record;
}

Result<void> Core::free_tags_locked(std::uint32_t slot, HeapCore& h) noexcept {
  const shared::LockGuard meta(roots_->small_lock, slot, peers_);
  if (!meta.held()) return meta.refused(EXTMEM_ERROR(EDEADLK, "the metadata's lock is this thread's own"));
  for (auto& bucket : h.tags) {
    while (bucket != 0) {
      const std::uint32_t index = bucket - 1;
      auto tx = transaction(slot);
      tx.set(bucket, tags_[index].next);
      roots_->tag_list.put(
          tx, index, [&](std::uint32_t i) -> auto& { return tags_[i].next; });
      tx.commit();
    }
  }
  return {};
}

namespace {
void spill(TagDelta& delta, TagRecord& record) noexcept {
  record.peak = std::max(record.peak.get(), record.bytes + delta.most);
  record.bytes.add(delta.bytes);
  record.count.add(delta.count);
  delta.bytes = 0;
  delta.most = 0;
  delta.count = 0;
}
}  // namespace

void Core::count_tag_locked(std::uint32_t slot, std::uint32_t heap, TagRecord& record, std::int64_t bytes,
                            std::int64_t count) noexcept {
  // What this thread has in its cache was held together with what it counts here: of one thread the peak is exact.
  if (ThreadCache* own = cache_of(slot, heap); own != nullptr) {
    TagDelta& delta = own->deltas[record.holder % kTagDeltas];
    if (delta.record != 0 && &tags_[delta.record - 1] == &record) spill(delta, record);
  }
  record.bytes.add(bytes);
  record.count.add(count);
  if (record.bytes > record.peak) record.peak = record.bytes.get();
}

TagDelta* Core::delta_of(ThreadCache& cache, std::uint16_t holder) const noexcept {
  TagDelta& delta = cache.deltas[holder % kTagDeltas];
  if (delta.record == 0 || delta.holder != holder) return nullptr;
  const std::int64_t bytes = delta.bytes;
  return bytes > kSpillBytes || bytes < -kSpillBytes ? nullptr
                                                     : &delta;  // null also when it is time to spill
}

Result<void> Core::make_delta(std::uint32_t slot, ThreadCache& cache, std::uint16_t holder) noexcept {
  HeapCore& h = heaps_[cache.heap];
  const HeapGuard guard(*this, slot, cache.heap);
  if (!guard.held()) {
    return guard.refused(
        EXTMEM_ERROR(EDEADLK, "this thread holds the heap's lock: do not use a heap inside a walk over it"));
  }
  if (cache.used == 0) return EXTMEM_ERROR(ESTALE, "the heap was destroyed while this call was under way");
  TagRecord* record = make_tag_locked(slot, h, holder);
  if (record == nullptr) {
    return EXTMEM_ERROR(ENOSPC, "no room for another (heap, tag) pair: raise DomainOptions::max_tags");
  }
  TagDelta& delta = cache.deltas[holder % kTagDeltas];
  if (delta.record != 0) spill(delta, tags_[delta.record - 1]);
  delta.holder = holder;
  delta.bytes = 0;
  delta.most = 0;
  delta.count = 0;
  delta.record = static_cast<std::uint32_t>(record - tags_) + 1;
  return {};
}

void Core::spill_tags_locked(ThreadCache& cache) noexcept {
  for (TagDelta& delta : cache.deltas) {
    if (delta.record != 0) spill(delta, tags_[delta.record - 1]);
    delta.record = 0;
  }
}

}  // namespace extmem::alloc
