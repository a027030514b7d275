// Slab: a span cut into equal objects, with a state word for each.
//
// What it is: one 64-byte record. A slab is *biased* to one thread slot (owner != 0) or *shared* (owner == 0).
// In a biased slab only the owner changes object states, so it may use plain loads and stores; whoever else wants to
// free into it first revokes the bias (Core::revoke): it pauses the owner at an operation's boundary and makes the
// slab shared, once. In a shared slab held -> cached is a compare-and-swap by anybody, everything else happens under
// the heap's lock. (Biased locking: Kawachiya et al., OOPSLA 2002; revocation by membarrier instead of signals.)
// So a thread that frees its own objects pays no locked instruction, and a second free is detected all the same,
// racing ones included.
// Thread-safety: constant fields are written before the slab is published; `free`, `hint` and the list links belong to
// the owner inside its busy section, or to the heap's lock when shared (or when the owner is paused).
// Invariants:
//  1. free == number of objects whose state is kFree; no free object has a number below hint.
//  2. listed (flag) exactly when the slab is in its owner's list (biased) or in the heap's list of its class (shared);
//     a slab with free objects is listed unless its region is draining.
//  3. objects == 0: the record is unused.
#pragma once

#include <cstdint>

#include "base/relaxed.hpp"

namespace extmem::alloc {

struct alignas(64) Slab {
  base::Relaxed<std::uint64_t> offset;       // of object 0 in the region; constant
  base::Relaxed<std::uint64_t> reciprocal;   // constant
  base::Relaxed<std::uint32_t> size;         // of an object; constant
  base::Relaxed<std::uint32_t> objects;      // constant while the slab lives
  base::Relaxed<std::uint32_t> first_state;  // index of object 0's state word; constant
  base::Relaxed<std::uint32_t> free;
  base::Relaxed<std::uint16_t> region;       // slot; constant
  base::Relaxed<std::uint16_t> heap;         // id; constant
  base::Relaxed<std::uint16_t> owner;        // thread slot, 0: shared. Changes under the heap's lock with the owner
                                             // paused, or by the owner under the heap's lock
  std::uint8_t cls;                          // constant
  base::Relaxed<std::uint8_t> flags;
  base::Relaxed<std::uint32_t> hint;
  base::Relaxed<std::uint32_t> list_next;    // + 1, in the list of slabs with free objects
  base::Relaxed<std::uint32_t> list_prev;
  base::Relaxed<std::uint32_t> all_next;     // + 1, in the heap's list of all slabs of the class (heap's lock)
  base::Relaxed<std::uint32_t> all_prev;
};
static_assert(sizeof(Slab) == 64);

inline constexpr std::uint8_t kSlabListed = 1;
inline constexpr std::uint8_t kSlabDraining = 2;

/// The object number of an offset (counted from the slab's first object). Exact below 256 KiB.
inline std::uint64_t object_of(std::uint64_t offset, std::uint64_t reciprocal) noexcept {
  return offset * reciprocal >> 40;
}

}  // namespace extmem::alloc
