// ThreadMemory: what a thread remembers between two calls, so that the fast paths look nothing up.
//
// What it is: thread-local data. Thread-safety: its thread's alone.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "alloc/core.hpp"
#include "base/relaxed.hpp"

namespace extmem::heap {

struct RegionLocal;

/// What a thread remembers: its last heap and its last region, with all that the fast paths need of them, and its slots
/// in a few domains.
/// Invariants:
///  1. Both parts are of the time when the domain's sequence was `seen`: they are valid while it still is (no region or
///     heap of the domain came or went since). Sequences of two domains never meet.
///  2. Whoever renews one part at another sequence forgets the other part: a key that no handle has, a length of zero.
///  3. `cache` is this thread's or empty, whatever the sequence: the cache of a heap that is destroyed is emptied and
///     stays with its thread, which remembers another one before it uses the record again; the destroying thread's own
///     goes to anybody, and so that thread forgets it. So popping needs no look at the sequence.
///  4. One of heap_key and exact_key is a heap's, the other no handle's; so a binned heap's fast paths do not look for
///     exact ones. Of region_mapped and region_exact one is 0 likewise.
struct alignas(64) ThreadMemory {
  static constexpr std::uint64_t kNoHeap = ~std::uint64_t{0};

  std::uint64_t heap_key = kNoHeap;  // a binned heap's
  const std::atomic<std::uint64_t>* sequence = nullptr;
  std::uint64_t seen = 0;
  alloc::ThreadCache* cache = nullptr;
  alloc::Core::FastTables tables;
  std::uint64_t region_bits = 0;  // slot << 48: the region's part of a RegionPtr
  std::uintptr_t region_base = 0;
  std::uint64_t region_length = 0;
  std::uint64_t region_mapped = 0;  // region_length, or 0 when the region has no slab map
  std::uint64_t region_cpu = 0;     // region_length, or 0 when the CPU cannot reach the region
  const base::Relaxed<std::uint32_t>* region_slab_map = nullptr;
  std::uint64_t exact_key = kNoHeap;  // an exact heap's
  std::uint64_t exact_serial =
      kNoHeap;                     // of that heap's domain. Not its address, which may be the next one's
  std::uint64_t region_exact = 0;  // bytes in whole pages of a region whose spans are cached, else 0
  RegionLocal* region = nullptr;
  struct Seat {
    std::uint32_t serial = 0;
    std::uint32_t slot = 0;
  };
  static constexpr std::uint32_t kSeats = 8;
  Seat seats[kSeats];
  std::uint32_t next_seat = 0;

  void see(std::uint64_t sequence_now) noexcept {
    if (seen == sequence_now) return;
    heap_key = kNoHeap;
    exact_key = kNoHeap;
    exact_serial = kNoHeap;
    region_length = 0;
    region_mapped = 0;
    region_exact = 0;
    region_cpu = 0;
    seen = sequence_now;
  }
};
// Initial-exec (set for the whole library): one add, no call; no malloc at a thread's first touch.
extern thread_local constinit ThreadMemory thread_memory;

}  // namespace extmem::heap
