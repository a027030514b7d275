// Span magazines: what a thread of an exact heap has freed and may take again, span by span.
//
// What it is: the second view of a ThreadCache's bytes, for exact heaps, which have no slabs: one row of whole spans in the
// order of their allocation, and the two fast paths. Only freed spans are cached, never carved ahead. The page layer takes
// them for held ones; whatever could tell the difference returns them to it first (core_exact.cpp).
// Order of frees: only a free that undoes the thread's last allocation is cached, and only the one undone last is taken again.
// The heap is then as it was before that allocation, which would get the same place again: neither addresses nor holes show
// that there are caches.
//
//     floor        level           top
//       | 1 | 2 | 3 | 4 | 5 |       the last allocations, the latest on the right
//       +- held ----+- cached
//
// A free of the span at `level` lowers it by one, an allocation of the length that comes next raises it: one store each.
// The row is the truth: what lies above `level` is cached, whatever the page layer says, and nothing else is.
// A span is biased to the thread in whose row it is: its descriptor names the owner. Whoever else changes such a span holds
// the heap's lock, makes the owner stand still and ends its row (note_changed), so that it meets no span there that is not
// its own any more. The owner's other ways to change one (reallocation, a memzone) end the row, too.
// Thread-safety: as ThreadCache. `level` is the owner's, inside its gate; the rest changes only under the heap's lock, with
// the owner paused, or by the owner itself. A closed cache is empty and pushes nothing: nobody needs to pause its owner.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "alloc/heap_core.hpp"
#include "alloc/page_space.hpp"
#include "alloc/thread_cache.hpp"
#include "base/always_inline.hpp"

namespace extmem::alloc {

inline constexpr unsigned kSpanUnitShift = 6;  // of regions whose spans are cached: the page of an exact heap
inline constexpr std::uint32_t kMostCachedPages = 0xffff;
inline constexpr std::uint64_t kMaxCachedSpan = std::uint64_t{kMostCachedPages} << kSpanUnitShift;
inline constexpr std::uint32_t kUndoDepth = 32;  // allocations that can be undone in a row

/// A span in a row. Aligned so that none lies in two cache lines.
struct alignas(16) RowSpan {
  base::Relaxed<std::uint64_t> address;  // in the owner's process
  base::Relaxed<std::uint64_t> span;     // region << 48 | length in pages << 32 | first page

  static constexpr std::uint64_t pack(std::uint32_t region, std::uint32_t length,
                                      std::uint32_t page) noexcept {
    return std::uint64_t{region} << 48 | std::uint64_t{length} << 32 | page;
  }
  [[nodiscard]] std::uint32_t region() const noexcept { return static_cast<std::uint32_t>(span >> 48); }
  [[nodiscard]] std::uint32_t length() const noexcept { return static_cast<std::uint16_t>(span >> 32); }
  [[nodiscard]] std::uint32_t page() const noexcept { return static_cast<std::uint32_t>(span); }
};

struct SpanMagazines {
  base::Relaxed<std::uint32_t> level;  // counts allocations, less those undone
  base::Relaxed<std::uint32_t>
      top;  // above `level`, up to here: cached. Read by others without pausing the owner
  base::Relaxed<std::uint32_t> floor;  // at this level nothing is left that a free could undo
  base::Relaxed<std::uint32_t> hits;   // pops since the owner was last disturbed
  base::Relaxed<std::uint64_t>
      owner;  // PageDesc::owned_by: what a span that is biased to the owner says; constant
  base::Relaxed<std::uint32_t> open;   // 0: closed, then level, top and floor are the same
  base::Relaxed<std::uint32_t> asked;  // 1: a flush has asked the owner to stand still (heap's lock)
  base::Relaxed<std::uint64_t> padding[2];
  RowSpan row[kUndoDepth];  // that of level n: row[n % kUndoDepth]

  static SpanMagazines& of(ThreadCache& cache) noexcept {
    return *reinterpret_cast<SpanMagazines*>(reinterpret_cast<std::byte*>(&cache) + kAt);
  }
  static const SpanMagazines& of(const ThreadCache& cache) noexcept {
    return *reinterpret_cast<const SpanMagazines*>(reinterpret_cast<const std::byte*>(&cache) + kAt);
  }
  [[nodiscard]] RowSpan& at(std::uint32_t place) noexcept { return row[place % kUndoDepth]; }
  [[nodiscard]] const RowSpan& at(std::uint32_t place) const noexcept { return row[place % kUndoDepth]; }
  /// How many spans are cached. Of a damaged row: none.
  [[nodiscard]] std::uint32_t cached() const noexcept {
    const std::uint32_t n = top - level;
    return n <= kUndoDepth ? n : 0;
  }
  /// Notes an allocation that a free may undo. By the owner, with nothing cached. Should it die in between, it dies before
  /// anybody has the span: then it may as well be cached.
  void note_allocated(std::uint64_t address, std::uint64_t span) noexcept {
    const std::uint32_t now = level + 1;
    if (now - floor > kUndoDepth) floor = now - kUndoDepth;
    at(now).address = address;
    at(now).span = span;
    std::atomic_signal_fence(std::memory_order_seq_cst);
    top = now;
    std::atomic_signal_fence(std::memory_order_seq_cst);
    level = now;
  }
  /// Notes a change of the heap that no free undoes. Nothing is cached.
  void note_changed() noexcept { floor = level.get(); }

  // The bytes of what a binned heap's cache has there instead.
  static constexpr std::size_t kAt = (offsetof(ThreadCache, magazines) + 15) / 16 * 16;
};
static_assert(SpanMagazines::kAt % alignof(SpanMagazines) == 0);
static_assert(SpanMagazines::kAt + sizeof(SpanMagazines) <= offsetof(ThreadCache, deltas));

/// Takes the span that was undone last, if it has that many pages, for an untagged holder: its address. 0: not that easily.
/// By the cache's owner. If the cache is closed in between it is emptied too.
EXTMEM_ALWAYS_INLINE std::uint64_t pop_span(ThreadCache& cache, std::uint64_t pages) noexcept {
  if (!cache.gate.try_enter()) [[unlikely]]
    return 0;
  SpanMagazines& spans = SpanMagazines::of(cache);
  const std::uint32_t level = spans.level;
  const RowSpan& span = spans.at(level + 1);
  if (level == spans.top || span.length() != pages) [[unlikely]] {
    cache.gate.leave();
    return 0;
  }
  const std::uint64_t address = span.address;
  spans.level = level + 1;
  spans.hits.add(1);
  cache.gate.leave();
  return address;
}

/// Frees the span that the thread allocated last. The region was mapped when `sequence` was `seen`.
/// False: not that easily. By the cache's owner.
EXTMEM_ALWAYS_INLINE bool push_span(ThreadCache& cache, std::uint64_t address,
                                    const std::atomic<std::uint64_t>& sequence, std::uint64_t seen) noexcept {
  if (!cache.gate.try_enter()) [[unlikely]]
    return false;
  SpanMagazines& spans = SpanMagazines::of(cache);
  const std::uint32_t level = spans.level;
  // The sequence inside: who unmaps a region here changes it, then flushes. Acquire: pairs with the release of that.
  if (level == spans.floor || spans.at(level).address != address ||
      sequence.load(std::memory_order_acquire) != seen) [[unlikely]] {
    cache.gate.leave();
    return false;
  }
  spans.level = level - 1;
  cache.gate.leave();
  return true;
}

}  // namespace extmem::alloc
