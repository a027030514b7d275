// The hot paths of binned heaps over what a thread remembers: Heap's own, and in line in those who have no call to spare (the preload
// library). They call nothing.
#pragma once

#include "alloc/core.hpp"
#include "extmem/heap.hpp"
#include "heap/domain_state.hpp"
#include "heap/thread_memory.hpp"

namespace extmem::heap {

/// Whether nothing of the thread's memory went since. Requires: it has a heap. See ThreadMemory.
EXTMEM_ALWAYS_INLINE bool current(const ThreadMemory& memory) noexcept {
  // Acquire: pairs with the release of the writer that made the sequence what it is.
  return memory.sequence->load(std::memory_order_acquire) == memory.seen;
}

struct HotPaths {
  /// The start of every plain allocation: an object from the magazine, or 0: not that easily, ask the heap.
  static EXTMEM_ALWAYS_INLINE std::uintptr_t pop(const ThreadMemory& memory, const Heap& heap,
                                                 std::size_t size) noexcept {
    const std::size_t last = size - 1;
    // One test after the other: each falls through, and nothing needs to be kept for a way back.
    if (last >= alloc::kMaxClassSize) [[unlikely]]
      return 0;
    // If the heap is gone, its cache is empty: invariant 3 of ThreadMemory.
    if (memory.heap_key != DomainState::key_of(heap)) [[unlikely]]
      return 0;
    return alloc::Core::pop(memory.tables, *memory.cache, alloc::magazine_of_last(last));
  }

  enum class Push : std::uint8_t {
    done,
    exact,   ///< nothing of a binned heap that the thread remembers: Heap::deallocate_exact
    shared,  ///< heap and region are current: Heap::deallocate_shared
    slow,    ///< Heap::deallocate_slowly
  };
  /// The start of every free: an object of a slab of the thread's own, on its magazine.
  static EXTMEM_ALWAYS_INLINE Push push(const ThreadMemory& memory, const Heap& heap, void* p) noexcept {
    const std::uint64_t offset = reinterpret_cast<std::uintptr_t>(p) - memory.region_base;
    if (offset >= memory.region_mapped) [[unlikely]]
      return Push::exact;
    if (memory.heap_key != DomainState::key_of(heap)) [[unlikely]]
      return Push::slow;
    if (!current(memory)) [[unlikely]]
      return Push::slow;
    const std::uint32_t link = memory.region_slab_map[offset >> alloc::kSlabMapShift];
    if (!alloc::Core::free_fast(memory.tables, *memory.cache, link, offset | memory.region_bits,
                                reinterpret_cast<std::uintptr_t>(p))) [[unlikely]]
      return Push::shared;
    return Push::done;
  }
};

}  // namespace extmem::heap
