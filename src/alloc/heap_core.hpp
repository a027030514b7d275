// The alloc layer's records of heaps, regions and tags in the control segment.
//
// Thread-safety: everything is guarded by the heap's lock unless it says otherwise.
#pragma once

#include <atomic>
#include <cstdint>

#include "alloc/page_space.hpp"
#include "alloc/size_class.hpp"
#include "base/relaxed.hpp"
#include "region/iova_table.hpp"
#include "shared/lock.hpp"

namespace extmem::alloc {

inline constexpr std::uint32_t kTagBuckets = 16;

/// Invariant (at any instant with the heap locked and its caches paused):
///   total pages == free pages + pages of held spans + pages of slabs
///   objects of all slabs == held + cached + free
struct alignas(64) HeapCore {
  shared::Lock lock;
  base::Relaxed<std::uint32_t> exact;         // style; constant while the heap lives
  base::Relaxed<std::uint32_t> first_region;  // slot, chained by RegionCore::next; 0: none
  base::Relaxed<std::uint32_t> regions;
  base::Relaxed<std::uint32_t> first_cache;  // + 1
  base::Relaxed<std::uint32_t> caches;
  base::Relaxed<std::uint32_t> most_caches;  // highest `caches` ever: bounds the error of peaks
  base::Relaxed<std::uint32_t> slab_count;
  base::Relaxed<std::uint64_t> span_count;  // held runs
  base::Relaxed<std::uint64_t> span_pages_bytes;
  std::atomic<std::int64_t> out_bytes;  // objects outside slabs, without the caches' out_delta
  base::Relaxed<std::int64_t> out_peak;
  base::Relaxed<std::uint32_t> all_slabs[kClasses];  // + 1
  base::Relaxed<std::uint32_t> partial[kClasses];    // + 1, slabs without keeper that have free objects
  base::Relaxed<std::uint32_t>
      sharing[kClasses];  // how much the class is used across threads (core_small.cpp)
  base::Relaxed<std::uint32_t> tags[kTagBuckets];  // + 1, TagRecord chains
  base::Relaxed<std::uint32_t> torn;     // 1: a holder of the lock died, and nobody has repaired the heap yet
  base::Relaxed<std::uint32_t> untold;   // 1: a thread died between an object's state and its counters
  base::Relaxed<std::uint32_t> emptied;  // 1: a region that growth added became empty since the last look
  base::Relaxed<std::uint32_t> slab_regions;  // those of `regions` that are long enough for slabs
  // Of an exact heap (core_exact.cpp).
  base::Relaxed<std::uint16_t> open_caches;   // caches that may hold spans
  base::Relaxed<std::uint16_t> closed_frees;  // frees until caches open again; 0: they may be open
  base::Relaxed<std::uint16_t> hits;          // of the caches that were disturbed
  base::Relaxed<std::uint8_t> disturbed;      // how often an owner had to stand still lately
  base::Relaxed<std::uint8_t> backoff;        // how often in a row that was for nothing
  // No region before that one in the chain had a free run of so many pages when it was last looked for, and nothing was freed
  // there since. A hint: who finds nothing looks at all regions.
  base::Relaxed<std::uint32_t> full_to;  // slot; 0: not known
  base::Relaxed<std::uint32_t> full_pages;
  // Of a binned one.
  base::Relaxed<std::uint32_t> tight;  // refills to come that leave slabs to everybody: memory was short
  base::Relaxed<std::uint32_t> last_region;  // slot: where the chain of first_region ends; 0: none
};

struct TagRecord {
  base::Relaxed<std::uint32_t> next;  // + 1
  base::Relaxed<std::uint32_t> holder;
  base::Relaxed<std::int64_t> bytes;  // without the caches' deltas. Under the heap's lock
  base::Relaxed<std::int64_t> count;
  base::Relaxed<std::int64_t> peak;
  std::int64_t scanned_bytes;  // verify()'s own count, to compare with
  std::int64_t scanned_count;
};

inline constexpr std::uint32_t kRegionUsed = 1;
inline constexpr std::uint32_t kRegionDraining = 2;
inline constexpr std::uint32_t kRegionSlabs = 4;  // large enough for slabs
inline constexpr std::uint32_t kRegionCpu = 8;    // the CPU can reach it
inline constexpr std::uint32_t kRegionExternal = 16;
inline constexpr std::uint32_t kRegionGrown = 32;
inline constexpr std::uint32_t kRegionAttached = 64;  // in its heap's chain
inline constexpr std::uint32_t kUndrain = 1u
                                          << 31;  // in `changing`: draining was begun by the removal itself

/// In RegionCore::asked: not drain_region() asks, but the heap, which wants to give a grown region back.
inline constexpr std::uint32_t kAskedByHeap = 1u << 31;

/// A region's page table: its page descriptors, then its slab map, a word per 64 KiB: slab index + 1 where a slab that
/// begins at such a boundary lies, else 0. The map is what a free looks at first: it is 64 times denser. Regions above
/// 1 TiB have a map of one word, which stays 0: their frees take the longer way.
inline constexpr unsigned kSlabMapShift = 16;
constexpr bool has_slab_map(std::uint64_t pages, unsigned page_shift) noexcept {
  return pages << page_shift <= std::uint64_t{1} << 40;
}
/// What an offset is shifted by to index the map.
constexpr unsigned slab_map_shift(std::uint64_t pages, unsigned page_shift) noexcept {
  return has_slab_map(pages, page_shift) ? kSlabMapShift : 63;
}
constexpr std::uint64_t slab_map_words(std::uint64_t pages, unsigned page_shift) noexcept {
  return ((pages << page_shift) >> slab_map_shift(pages, page_shift)) + 1;
}
constexpr std::uint64_t page_table_bytes(std::uint64_t pages, unsigned page_shift) noexcept {
  return pages * sizeof(PageDesc) + slab_map_words(pages, page_shift) * sizeof(std::uint32_t);
}

struct alignas(64) RegionCore {
  base::Relaxed<std::uint32_t> flags;
  base::Relaxed<std::uint32_t> generation;
  base::Relaxed<std::uint32_t> heap;
  base::Relaxed<std::uint32_t> next;  // slot, in the heap's chain
  base::Relaxed<std::uint32_t> os_page_shift;
  base::Relaxed<std::int32_t> node;
  base::Relaxed<std::uint64_t> length;
  base::Relaxed<std::uint64_t> phase;  // address of offset 0 (in the adding process)
  std::atomic<std::uint32_t> drained;  // futex word: changes when memory of a draining region is freed
  base::Relaxed<std::uint32_t>
      changing;  // the slot that adds or removes the region now; 0: nobody. For its cleaner
  std::uint64_t page_table_bytes;
  std::uint64_t iova_offset;  // what `iova` lies in, from the allocation on; length 0: nothing
  std::uint64_t iova_bytes;
  base::Relaxed<std::uint32_t> served;  // 1: something was placed in it since it was added
  base::Relaxed<std::uint32_t>
      asked;  // the participant that wants to remove it: others are to unmap it. It keeps
              // its own mapping, or memory that has no name would be gone for good
  region::IovaTable iova;
  PageSpace pages;
  base::Relaxed<std::uint32_t> rank;    // grows along the heap's chain
  base::Relaxed<std::uint32_t> before;  // slot, in the heap's chain; 0: it is the first
};

}  // namespace extmem::alloc
