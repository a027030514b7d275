// Span magazines: what a thread of an exact heap has freed and may take again, span by span.
//
// What it is: the second view of a ThreadCache's bytes, for exact heaps, which have no slabs: 64 stacks of whole spans, one
// for each length in units of 64 bytes, and the two fast paths. Only freed spans are cached, never carved ahead. The
// page layer takes them for held ones; whatever could tell the difference returns them to it first (core_exact.cpp).
// The truth about a span is its head's descriptor: held_head, or cached_head with the owner's name. Order of stores: a free
// pushes, then marks cached; an allocation marks held, then pops. So at every instruction each cached head that names
// an owner is in its stacks, and an entry whose head does not say so is none.
// Order of frees: only a free that undoes the thread's last allocation is cached, and only the one undone last is taken again.
// The heap is then as it was before that allocation, which would get the same place again: neither addresses nor holes show
// that there are caches. `undo` has the spans in the order of their allocation: below `level` those that are held, above
// it those that are cached.
// Thread-safety: as ThreadCache. `open` and PageDesc's owner change only under the heap's lock, with the owner paused, or by
// the owner itself. A closed cache is empty and pushes nothing: nobody needs to pause its owner.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>

#include "alloc/heap_core.hpp"
#include "alloc/page_space.hpp"
#include "alloc/thread_cache.hpp"
#include "base/always_inline.hpp"

namespace extmem::alloc {

inline constexpr unsigned kSpanUnitShift = 6;  // of regions whose spans are cached: the page of an exact heap
inline constexpr std::uint32_t kSpanStacks = 64;
inline constexpr std::uint64_t kMaxCachedSpan = std::uint64_t{kSpanStacks} << kSpanUnitShift;
inline constexpr std::uint32_t kSpanCapacity = 39;
inline constexpr std::uint32_t kUndoDepth = 32;  // allocations that can be undone in a row

/// A cached span. Aligned so that none lies in two cache lines.
struct alignas(16) CachedSpan {
  std::uint64_t address;  // in the owner's process, which alone pops; 0: the null entry
  std::uint64_t place;    // region << 48 | where its head's descriptor is in the segment
};
inline constexpr std::uint64_t kPlaceMask = (std::uint64_t{1} << 48) - 1;

/// How many spans a stack holds: 64 KiB worth, so that a flush is short, at least 16.
constexpr std::uint32_t span_capacity(std::uint32_t stack) noexcept {
  return std::clamp<std::uint32_t>(65536 / ((stack + 1) << kSpanUnitShift), 16, kSpanCapacity);
}

struct SpanMagazines {
  // PageDesc::pack(held_head, 0, the owner's untagged holder); 0: closed.
  base::Relaxed<std::uint64_t> open;
  base::Relaxed<std::uint64_t>
      owner;  // PageDesc::owned_by: what a span that is biased to the owner says; constant
  Magazine magazines[kSpanStacks];
  base::Relaxed<std::uint64_t> padding;  // the next three lie in one cache line
  base::Relaxed<std::uint64_t>
      used;  // bit s: stack s may hold something. Read by others without pausing the owner
  base::Relaxed<std::uint32_t> hits;   // pops since the owner was last disturbed
  base::Relaxed<std::uint32_t> asked;  // 1: a flush has asked the owner to stand still (heap's lock)
  base::Relaxed<std::uint32_t> level;  // counts allocations, less those undone
  base::Relaxed<std::uint32_t> floor;  // at this level nothing is left that a free could undo

  static SpanMagazines& of(ThreadCache& cache) noexcept {
    return *reinterpret_cast<SpanMagazines*>(reinterpret_cast<std::byte*>(&cache) + kAt);
  }
  static const SpanMagazines& of(const ThreadCache& cache) noexcept {
    return *reinterpret_cast<const SpanMagazines*>(reinterpret_cast<const std::byte*>(&cache) + kAt);
  }
  /// The entry whose place in the cache a stack's top names.
  static CachedSpan& entry(ThreadCache& cache, std::uint32_t at) noexcept {
    return *reinterpret_cast<CachedSpan*>(reinterpret_cast<std::byte*>(&cache) + at);
  }
  static const CachedSpan& entry(const ThreadCache& cache, std::uint32_t at) noexcept {
    return *reinterpret_cast<const CachedSpan*>(reinterpret_cast<const std::byte*>(&cache) + at);
  }
  /// The top of a stack of n spans; the null entry lies at place(stack, 0).
  static constexpr std::uint32_t place(std::uint32_t stack, std::uint32_t n) noexcept {
    return static_cast<std::uint32_t>(offsetof(ThreadCache, stacks) +
                                      (stack * (kSpanCapacity + 1) + n) * sizeof(CachedSpan));
  }
  [[nodiscard]] std::uint32_t count(std::uint32_t stack) const noexcept {
    return (magazines[stack].top - place(stack, 0)) / static_cast<std::uint32_t>(sizeof(CachedSpan));
  }
  void set_count(std::uint32_t stack, std::uint32_t n) noexcept { magazines[stack].top = place(stack, n); }

  /// Where the span lies that was allocated as the level became this. Behind the stacks.
  static base::Relaxed<std::uint64_t>& undo(ThreadCache& cache, std::uint32_t level) noexcept {
    return reinterpret_cast<base::Relaxed<std::uint64_t>*>(reinterpret_cast<std::byte*>(&cache) +
                                                           place(kSpanStacks, 0))[level % kUndoDepth];
  }
  /// Notes an allocation that a free may undo. By the owner.
  void note_allocated(ThreadCache& cache, std::uint64_t at) noexcept {
    level.add(1);
    undo(cache, level) = at;
    if (level - floor > kUndoDepth) floor = level - kUndoDepth;
  }
  /// Notes a change of the heap that no free undoes. By the owner, with nothing cached.
  void note_changed() noexcept { floor = level.get(); }

  // The bytes of what a binned heap's cache has there instead.
  static constexpr std::size_t kAt = offsetof(ThreadCache, magazines);
};
static_assert(SpanMagazines::kAt % alignof(SpanMagazines) == 0);
static_assert(SpanMagazines::kAt + sizeof(SpanMagazines) <= offsetof(ThreadCache, deltas));
static_assert(SpanMagazines::place(kSpanStacks, 0) + kUndoDepth * sizeof(std::uint64_t) <=
              offsetof(ThreadCache, stacks) + sizeof(ThreadCache::stacks));
static_assert(SpanMagazines::place(0, 0) % alignof(CachedSpan) == 0);
static_assert(kSpanStacks == 64);  // `used` has a bit for each

/// Pops a span of (stack + 1) units for an untagged holder: its address. 0: not that easily. By the cache's owner.
EXTMEM_ALWAYS_INLINE std::uint64_t pop_span(std::byte* segment, ThreadCache& cache,
                                            std::uint32_t stack) noexcept {
  SpanMagazines& spans = SpanMagazines::of(cache);
  // Before entering: if it is closed in between it is emptied too, and it is the owner alone who opens it.
  const std::uint64_t open = spans.open;
  if (open == 0) [[unlikely]]
    return 0;
  if (!cache.gate.try_enter()) [[unlikely]]
    return 0;
  Magazine& magazine = spans.magazines[stack];
  const std::uint32_t top = magazine.top;
  const CachedSpan& span = SpanMagazines::entry(cache, top);
  const std::uint64_t address = span.address;
  const std::uint32_t level = spans.level + 1;
  if (address == 0 || SpanMagazines::undo(cache, level) != span.place) [[unlikely]] {
    cache.gate.leave();
    return 0;
  }
  spans.level = level;
  reinterpret_cast<PageDesc*>(segment + (span.place & kPlaceMask))->word0.set(open + stack + 1);
  std::atomic_signal_fence(
      std::memory_order_seq_cst);  // held first: a cleaner believes the head, not the stack
  magazine.top = top - static_cast<std::uint32_t>(sizeof(CachedSpan));
  spans.hits.add(1);
  cache.gate.leave();
  return address;
}

/// Frees an untagged span that is biased to this thread into its stack. `desc`: of the page that begins at the address,
/// `place` says where that lies; both were found, and the region was mapped, when `sequence` was `seen`.
/// False: not that easily. By the cache's owner.
EXTMEM_ALWAYS_INLINE bool push_span(ThreadCache& cache, PageDesc& desc, std::uint64_t place,
                                    std::uint64_t address, const base::Relaxed<std::uint32_t>& region_flags,
                                    const std::atomic<std::uint64_t>& sequence, std::uint64_t seen) noexcept {
  if (!cache.gate.try_enter()) [[unlikely]]
    return false;
  SpanMagazines& spans = SpanMagazines::of(cache);
  const auto refuse = [&] {
    cache.gate.leave();
    return false;
  };
  // Inside: who unmaps a region here changes the sequence, then flushes. Acquire: pairs with the release of that.
  if (sequence.load(std::memory_order_acquire) != seen) [[unlikely]]
    return refuse();
  // The head says that it is ours: nobody else writes it while we are busy, and a word that says so is a head's.
  if (desc.word1 != spans.owner) [[unlikely]]
    return refuse();
  // Held, by our untagged holder, of 1 to 64 units: one comparison. Of a closed cache no word passes it.
  const std::uint64_t word0 = desc.word0;
  const std::uint64_t stack = word0 - spans.open - 1;
  if (stack >= kSpanStacks) [[unlikely]]
    return refuse();
  if ((region_flags & kRegionDraining) != 0) [[unlikely]]
    return refuse();
  Magazine& magazine = spans.magazines[stack];
  const std::uint32_t top = magazine.top;
  if (top >= magazine.limit) [[unlikely]]
    return refuse();
  const std::uint32_t level = spans.level;
  if (level == spans.floor || SpanMagazines::undo(cache, level) != place) [[unlikely]]
    return refuse();
  const std::uint32_t next = top + static_cast<std::uint32_t>(sizeof(CachedSpan));
  spans.used = spans.used | std::uint64_t{1} << stack;
  std::atomic_signal_fence(std::memory_order_seq_cst);
  SpanMagazines::entry(cache, next) = CachedSpan{address, place};
  std::atomic_signal_fence(std::memory_order_seq_cst);
  magazine.top = next;
  std::atomic_signal_fence(std::memory_order_seq_cst);  // cached last: what is cached is in the stack
  constexpr std::uint64_t kCached =
      PageDesc::pack(PageKind::cached_head, 0) - PageDesc::pack(PageKind::held_head, 0);
  desc.word0.set(word0 + kCached);
  spans.level = level - 1;
  cache.gate.leave();
  return true;
}

}  // namespace extmem::alloc
