// The fast paths of exact heaps over what a thread remembers, for Heap and Domain alike.
#pragma once

#include "alloc/span_magazines.hpp"
#include "heap/domain_state.hpp"

namespace extmem::heap {

/// A span of the heap with this key from the thread's magazine, or 0. Every span begins at a multiple of 64.
EXTMEM_ALWAYS_INLINE std::uintptr_t pop_exact(const ThreadMemory& memory, std::uint64_t key,
                                              std::size_t size) noexcept {
  const std::size_t last = size - 1;
  if (last >= alloc::kMaxCachedSpan) [[unlikely]]
    return 0;
  // If the heap is gone, its cache is empty: invariant 3 of ThreadMemory.
  if (memory.exact_key != key) [[unlikely]]
    return 0;
  return alloc::pop_span(*memory.cache, (last >> alloc::kSpanUnitShift) + 1);
}

/// Frees the span that the thread allocated last in whichever exact heap it remembers. False: not that easily.
/// Requires: it remembers one, of the domain (or the heap) that the caller means.
EXTMEM_ALWAYS_INLINE bool push_exact(const ThreadMemory& memory, const void* p) noexcept {
  return alloc::push_span(*memory.cache, reinterpret_cast<std::uintptr_t>(p), *memory.sequence, memory.seen);
}

/// Frees a span of that heap which push_exact() does not take, under the heap's lock. False: not that easily.
/// Requires: as push_exact().
inline bool free_exact(DomainState& state, const ThreadMemory& memory, const void* p) noexcept {
  const std::uint64_t offset = reinterpret_cast<std::uintptr_t>(p) - memory.region_base;
  constexpr std::uint64_t kUnit = std::uint64_t{1} << alloc::kSpanUnitShift;
  if (offset >= memory.region_exact || (offset & (kUnit - 1)) != 0) return false;
  // Acquire: pairs with the release of the writer that made the sequence what it is.
  if (memory.sequence->load(std::memory_order_acquire) != memory.seen) return false;
  const std::uint32_t heap = memory.cache->heap;
  if (!state.core_.free_plain_span(*memory.cache, memory.region->slot,
                                   static_cast<std::uint32_t>(offset / kUnit)))
    return false;
  state.tidy_growth(heap);
  return true;
}

}  // namespace extmem::heap
