// Thread cache: the magazines of one thread for one heap, and the handshake by which others may look inside.
//
// Of a binned heap's; an exact heap's cache has SpanMagazines in the same bytes (span_magazines.hpp).
// What it is: per size class a stack ("magazine", Bonwick & Adams 2001) of free objects, and the list of the slabs that
// this thread keeps and that have free objects. Beside each magazine an "outbox": what the thread has freed of slabs that it
// does not keep. That it does not hand out again, so that no two threads write into one cache line; it gives it back, all at
// once. The cache lives in the control segment, so that anyone can flush it: a sleeping thread pins nothing.
// Thread-safety: the owner works inside gate.enter()/leave(). Another thread holds the heap's lock, pauses it and then
// owns the cache until it resumes it. The owner itself, holding the heap's lock, owns it too: pausing needs that lock.
// Invariants:
//  1. Every entry's state word says cached_by(slot), and every such word of the heap has one entry, in magazine or outbox.
//  2. magazines[c].top lies between place(c, 0), where the null entry is, and magazines[c].limit, which grows from room for
//     kFirstRoom objects to the class' capacity: a thread that ends soon fills, and gives back, little.
//  3. `own[c]` lists exactly the listed slabs of class c whose keeper is `slot`, `returned[c]` those with returned objects.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "alloc/size_class.hpp"
#include "base/relaxed.hpp"
#include "shared/handshake.hpp"

namespace extmem::alloc {

/// One free object in a magazine. Aligned so that none lies in two cache lines.
struct alignas(16) CachedObject {
  std::uint64_t address;  // in the owner's process, which alone pops; 0: the null entry
  std::uint32_t state;    // index of its state word
  std::uint32_t slab;     // + 1
};

/// A class' stack: where in the cache its last entry lies, in bytes from the cache's start. The null entry lies below
/// the first, so that popping needs no other test than that of the address, and no arithmetic on counts.
struct Magazine {
  base::Relaxed<std::uint32_t> top;
  base::Relaxed<std::uint32_t> limit;  // top of a full stack; grows (ThreadCache::widen)
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

inline constexpr std::uint32_t kFirstRoom = 8;  // of a new cache's stacks

// How many of its own objects a thread frees by compare-and-swap before one of its shared slabs is biased again: twice as many
// each time that this turns out to be too early, because another thread revokes it again. Then a few for each of the others.
inline constexpr std::uint16_t kPatience = 256;
inline constexpr std::uint16_t kMostPatience = 8192;
inline constexpr std::uint16_t kNextPatience = 16;

struct alignas(64) ThreadCache {
  // What the fast paths need, next to the gate.
  shared::Handshake gate;
  base::Relaxed<std::uint32_t>
      home;  // Slab::pack(heap, slot): what a slab that is biased to the owner says; 0: of an exact heap
  base::Relaxed<std::uint16_t> held;    // state of an object that the owner allocates without a tag
  base::Relaxed<std::uint16_t> cached;  // cached_by(slot)
  base::Relaxed<std::uint32_t> slot;    // the owner's
  base::Relaxed<std::uint32_t> heap;
  base::Relaxed<std::uint32_t> next;      // + 1, in the heap's list (heap's lock)
  base::Relaxed<std::uint32_t> used;      // 1: in some heap's list
  base::Relaxed<std::int64_t> out_delta;  // bytes taken from slabs minus returned, not yet told the heap
  Magazine magazines[kClasses];
  base::Relaxed<std::uint32_t> own[kClasses];    // + 1
  base::Relaxed<std::uint32_t> empty[kClasses];  // wholly free slabs in own[c]
  TagDelta deltas[kTagDeltas];
  // How often the owner began an operation by the long way (Core::enter): whoever only looks can tell that meanwhile
  // nothing but pops and pushes of magazines can have happened. Written by the owner, inside its gate.
  std::atomic<std::uint32_t> entered;
  std::uint32_t padding;
  CachedObject stacks[kClasses][1 + kMagazineCapacity];  // [c][0]: the null entry
  base::Relaxed<std::uint16_t> out_counts[kClasses];     // objects in each outbox
  // Own frees into shared slabs until one of these is biased again: left, and as many as it takes.
  base::Relaxed<std::uint16_t> patience[kClasses];
  base::Relaxed<std::uint16_t> whole_patience[kClasses];
  // By who holds the heap's lock.
  base::Relaxed<std::uint16_t> wholly[kClasses];  // slabs in returned[c] that are marked so
  base::Relaxed<std::uint32_t>
      returned[kClasses];  // + 1, slabs that this thread keeps and others have given back to
  CachedObject outboxes[kOutboxes][kOutbox];

  /// Whether its magazines are those of an exact heap: SpanMagazines.
  [[nodiscard]] bool exact() const noexcept { return home == 0; }
  [[nodiscard]] CachedObject& entry(std::uint64_t at) noexcept {
    return *reinterpret_cast<CachedObject*>(reinterpret_cast<std::byte*>(this) + at);
  }
  [[nodiscard]] CachedObject* objects(std::uint32_t cls) noexcept { return &stacks[cls][1]; }
  [[nodiscard]] const CachedObject* objects(std::uint32_t cls) const noexcept { return &stacks[cls][1]; }
  [[nodiscard]] CachedObject* outbox(std::uint32_t cls) noexcept { return outboxes[cls]; }
  [[nodiscard]] const CachedObject* outbox(std::uint32_t cls) const noexcept { return outboxes[cls]; }
  /// All objects of a class that the thread caches.
  [[nodiscard]] std::uint32_t cached_count(std::uint32_t cls) const noexcept {
    return count(cls) + out_counts[cls];
  }
  /// Where a class' magazine is, in bytes from the cache's start: so a slab says it, for who frees.
  static constexpr std::uint16_t magazine_at(std::uint32_t cls) noexcept {
    return static_cast<std::uint16_t>(offsetof(ThreadCache, magazines) + cls * sizeof(Magazine));
  }
  [[nodiscard]] Magazine& magazine(std::uint64_t at) noexcept {
    return *reinterpret_cast<Magazine*>(reinterpret_cast<std::byte*>(this) + at);
  }
  /// The top of a stack of n objects.
  static constexpr std::uint32_t place(std::uint32_t cls, std::uint32_t n) noexcept {
    return static_cast<std::uint32_t>(offsetof(ThreadCache, stacks) + cls * sizeof(ThreadCache::stacks[0]) +
                                      n * sizeof(CachedObject));
  }
  [[nodiscard]] std::uint32_t count(std::uint32_t cls) const noexcept {
    return (magazines[cls].top - place(cls, 0)) / static_cast<std::uint32_t>(sizeof(CachedObject));
  }
  /// How many objects the class' stack takes now.
  [[nodiscard]] std::uint32_t room(std::uint32_t cls) const noexcept {
    return (magazines[cls].limit - place(cls, 0)) / static_cast<std::uint32_t>(sizeof(CachedObject));
  }
  /// Doubles that, up to the class' capacity. By the owner, inside its gate or with the heap's lock.
  void widen(std::uint32_t cls) noexcept {
    const std::uint32_t capacity = kSizeClasses[cls].capacity;
    const std::uint32_t now = room(cls);
    if (now < capacity) magazines[cls].limit = place(cls, now * 2 < capacity ? now * 2 : capacity);
  }
  void set_count(std::uint32_t cls, std::uint32_t n) noexcept { magazines[cls].top = place(cls, n); }
  /// Empties stacks and lists without looking at them: the object states say what was in them.
  void forget() noexcept {
    for (std::uint32_t cls = 0; cls < kClasses; ++cls) {
      set_count(cls, 0);
      out_counts[cls] = 0;
      own[cls] = 0;
      empty[cls] = 0;
      returned[cls] = 0;
      wholly[cls] = 0;
    }
  }
};

namespace detail {
constexpr ClassTable make_place_table() noexcept {
  ClassTable table{};
  for (std::uint32_t i = 0; i < table.size(); ++i) {
    table[i] =
        static_cast<std::uint8_t>(offsetof(ThreadCache, magazines) / sizeof(Magazine) + kClassTable[i]);
  }
  return table;
}
}  // namespace detail
static_assert(offsetof(ThreadCache, magazines) % sizeof(Magazine) == 0);

inline constexpr detail::ClassTable kPlaceTable = detail::make_place_table();

/// Which magazine has objects that hold the byte at offset `last`, counted from the cache's start: the class' number
/// and where the magazines begin in one. Requires: last < kMaxClassSize.
constexpr std::uint64_t magazine_of_last(std::uint64_t last) noexcept { return kPlaceTable[(last >> 4) + 1]; }

}  // namespace extmem::alloc
