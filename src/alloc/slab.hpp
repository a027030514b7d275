// Slab: a span cut into equal objects, with a state word for each.
//
// What it is: one 64-byte record, about which two questions are asked.
// *How are its objects freed?* A slab is *biased* to one thread slot (owner != 0) or *shared* (owner == 0).
// In a biased slab only the owner frees, so it may use plain loads and stores; whoever else wants to
// free into it first revokes the bias (Core::revoke): it pauses the owner at an operation's boundary and makes the
// slab shared. In a shared slab held -> cached is a compare-and-swap by anybody. (Biased locking: Kawachiya et al., OOPSLA
// 2002; revocation by membarrier instead of signals.) So a thread that frees its own objects pays no locked instruction, and
// a second free is detected all the same, racing ones included.
// *Who hands its objects out?* Its *keeper*, a thread slot, without a lock; or, where it has none, whoever holds the heap's
// lock. So objects beside each other come to one thread at a time, also when others free some of them: those they return,
// under the heap's lock, as `returned`, which the keeper adds to `free` when it has nothing else.
// Thread-safety: constant fields are written before the slab is published; `free`, `hint` and the list links belong to
// the keeper inside its busy section, or to the heap's lock when there is none (or when it is paused); `returned`, `lowest`
// and `returned_next` to the heap's lock; keeper and owner change under the heap's lock, with the old one paused.
// Invariants:
//  1. free + returned == number of objects whose state is kFree; fewer than `returned` + 1 of them, and none below `lowest`,
//     have a number below hint.
//  2. listed (flag) exactly when the slab is in its keeper's list or, without keeper, in the heap's list of its class;
//     a slab whose `free` is not 0 is listed unless its region is draining.
//  3. objects == 0: the record is unused.
//  4. owner != 0: it is the keeper. A slab of a region that drains has none.
//  5. returned != 0 exactly when the slab is in its keeper's list of those with returned objects.
#pragma once

#include <cstdint>

#include "alloc/size_class.hpp"
#include "base/always_inline.hpp"
#include "base/relaxed.hpp"

namespace extmem::alloc {

struct alignas(64) Slab {
  // What a free needs.
  base::Relaxed<std::uint64_t> first;       // RegionPtr bits of object 0; constant
  base::Relaxed<std::uint64_t> reciprocal;  // constant
  base::Relaxed<std::uint32_t> home;        // see below
  base::Relaxed<std::uint16_t> objects;     // constant while the slab lives
  base::Relaxed<std::uint16_t> keeper;
  base::Relaxed<std::uint32_t> first_state;  // index of object 0's state word; constant
  base::Relaxed<std::uint16_t> magazine;     // ThreadCache::magazine_at(cls()); constant
  base::Relaxed<std::uint16_t> size_class;   // constant
  // The rest.
  base::Relaxed<std::uint32_t> returned_next;  // + 1, in the keeper's list of slabs with returned objects
  base::Relaxed<std::uint16_t> free;
  base::Relaxed<std::uint16_t> hint;
  base::Relaxed<std::uint16_t> flags;
  base::Relaxed<std::uint16_t> returned;  // free objects that others gave back, not counted by `free`
  base::Relaxed<std::uint16_t> units;     // an object's size / 16; constant
  base::Relaxed<std::uint16_t>
      lowest;  // number of the first of them; kWholly: seen to be all that was missing
  base::Relaxed<std::uint32_t> list_next;  // + 1, in the list of slabs with free objects
  base::Relaxed<std::uint32_t> list_prev;
  base::Relaxed<std::uint32_t> all_next;  // + 1, in the heap's list of all slabs of the class (heap's lock)
  base::Relaxed<std::uint32_t> all_prev;

  // home:  31   16 15     0
  //       | owner | heap   |    owner 0: shared
  // One word, so that a free compares heap and owner at once.
  static constexpr std::uint32_t pack(std::uint32_t heap, std::uint32_t owner) noexcept {
    return heap | owner << 16;
  }
  [[nodiscard]] std::uint32_t region() const noexcept {
    return static_cast<std::uint32_t>(first.get() >> 48);
  }
  [[nodiscard]] std::uint64_t offset() const noexcept { return first.get() & ((std::uint64_t{1} << 48) - 1); }
  [[nodiscard]] std::uint32_t heap() const noexcept { return static_cast<std::uint16_t>(home.get()); }
  [[nodiscard]] std::uint32_t owner() const noexcept { return home.get() >> 16; }
  [[nodiscard]] std::uint32_t cls() const noexcept { return size_class; }
  [[nodiscard]] std::uint32_t size() const noexcept { return std::uint32_t{units} << 4; }
  [[nodiscard]] std::uint32_t all_free() const noexcept { return std::uint32_t{free} + returned; }
  void share() noexcept { home = pack(heap(), 0); }
  /// Nobody's any more. In this order: see invariant 4.
  void abandon() noexcept {
    share();
    keeper = 0;
  }
};
static_assert(sizeof(Slab) == 64);

inline constexpr std::uint16_t kSlabListed = 1;
inline constexpr std::uint16_t kSlabDraining = 2;

inline constexpr std::uint16_t kWholly = 0x8000;  // in Slab::lowest
static_assert(kMaxSlabObjects <= kWholly);

/// Division by an object's size: the object's number, and whether the offset is where it begins.
/// Lemire, Kaser, Kurz: "Faster remainder by direct computation" (2019): with reciprocal = ceil(2^64 / size), the high
/// half of the product is the quotient and the low half is below the reciprocal exactly when the remainder is 0; right
/// for offsets below 2^32. A larger one (an address outside the slab) gives a number no smaller than 2^32 / size.
struct ObjectPlace {
  std::uint64_t number;
  bool exact;
};
EXTMEM_ALWAYS_INLINE ObjectPlace place_of(std::uint64_t offset, std::uint64_t reciprocal) noexcept {
#if defined(__x86_64__)
  // gcc keeps an __int128 in a pair of registers that the caller must have saved: that costs more than the division.
  std::uint64_t low = offset;
  std::uint64_t high;
  __asm__("mulq %2" : "+a"(low), "=&d"(high) : "r"(reciprocal) : "cc");
#else
  __extension__ using Wide = unsigned __int128;
  const Wide product = static_cast<Wide>(offset) * reciprocal;
  const auto low = static_cast<std::uint64_t>(product);
  const auto high = static_cast<std::uint64_t>(product >> 64);
#endif
  return ObjectPlace{high, low < reciprocal};
}
constexpr std::uint64_t reciprocal_of(std::uint64_t size) noexcept { return ~std::uint64_t{0} / size + 1; }

}  // namespace extmem::alloc
