// Thread cache: the magazines of one thread for one heap, and the handshake by which others may look inside.
//
// What it is: per size class a stack ("magazine", Bonwick & Adams 2001) of free objects, and the list of the slabs that
// are biased to this thread and have free objects. It lives in the control segment, so that anyone can flush it: a
// sleeping thread pins nothing.
// Thread-safety: the owner works inside gate.enter()/leave(). Another thread holds the heap's lock, pauses it and then
// owns the cache until it resumes it. The owner itself, holding the heap's lock, owns it too: pausing needs that lock.
// Invariants:
//  1. Every entry's state word says cached_by(slot), and every such word of the heap has one entry.
//  2. magazines[c].count <= magazines[c].capacity.
//  3. `own[c]` lists exactly the listed slabs of class c whose owner is `slot`.
#pragma once

#include <cstdint>

#include "alloc/size_class.hpp"
#include "base/relaxed.hpp"
#include "shared/handshake.hpp"

namespace extmem::alloc {

/// One free object in a magazine.
struct CachedObject {
  std::uint64_t ptr;    // RegionPtr bits
  std::uint32_t state;  // index of its state word
  std::uint32_t slab;
};

/// How full a class' stack in ThreadCache::objects is.
struct Magazine {
  base::Relaxed<std::uint32_t> count;
  base::Relaxed<std::uint32_t> capacity;  // constant
};

/// What this thread has added to a tag's counters and not yet told the tag's record.
struct TagDelta {
  base::Relaxed<std::uint32_t> record;  // + 1; 0: unused
  base::Relaxed<std::uint32_t> holder;
  base::Relaxed<std::int64_t> bytes;
  base::Relaxed<std::int64_t> most;  // the highest value of `bytes` since it was zero
  base::Relaxed<std::int64_t> count;
};
inline constexpr std::uint32_t kTagDeltas = 64;
inline constexpr std::int64_t kSpillBytes = 65536;

struct alignas(64) ThreadCache {
  shared::Handshake gate;
  base::Relaxed<std::uint32_t> slot;   // the owner's
  base::Relaxed<std::uint32_t> heap;
  base::Relaxed<std::uint64_t> identity;  // Slab::pack(heap, slot, 0)
  base::Relaxed<std::uint16_t> held;   // the state of an untagged object that this process holds; constant
  base::Relaxed<std::uint32_t> next;   // + 1, in the heap's list (heap's lock)
  base::Relaxed<std::uint32_t> used;   // 1: in some heap's list
  base::Relaxed<std::int64_t> out_delta;  // bytes taken from slabs minus returned, not yet told the heap
  Magazine magazines[kClasses];
  base::Relaxed<std::uint32_t> own[kClasses];     // + 1
  base::Relaxed<std::uint32_t> empty[kClasses];   // wholly free slabs in own[c]
  TagDelta deltas[kTagDeltas];
  CachedObject objects[kClasses][kMagazineCapacity];
};

}  // namespace extmem::alloc
