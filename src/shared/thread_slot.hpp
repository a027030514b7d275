// Thread slots: who does what in a domain. A slot is a thread's identity towards locks and object states.
//
// What it is: one record per thread that uses the domain now, with the undo journal of the one multi-step
// operation that it has in flight.
// Thread-safety: a slot's journal is written by its thread only (and by the cleaner of a dead thread); claiming
// and leaving a slot is a compare-and-swap on `owner`.
// Invariants:
//  1. Slot 0 is nobody; slot numbers fit 14 bits (an object state names its caching slot).
//  2. journal.count == 0 unless the thread is inside a Transaction.
#pragma once

#include <atomic>
#include <cstdint>

#include "base/relaxed.hpp"

namespace extmem::shared {

inline constexpr std::uint32_t kMaxThreadSlots = (1u << 14) - 1;

/// One saved word: where (offset << 8 | size in bytes) and what it held.
struct JournalEntry {
  std::uint64_t where;
  std::uint64_t old;
};

inline constexpr std::uint32_t kJournalCapacity = 1022;

struct Journal {
  std::atomic<std::uint32_t>
      count;  // stored after the entry, before the word changes (compiler order suffices:
              // the reader is a cleaner that runs after the writer's death)
  std::uint32_t padding;
  JournalEntry entries[kJournalCapacity];
};

struct alignas(64) ThreadSlot {
  std::atomic<std::uint64_t>
      owner;  // 0: free; else thread id | participant << 32. Claimed by acquire-CAS, left by
              // release-store, so that a new owner sees what the last one wrote
  std::atomic<std::uint32_t>
      healer;  // low 14 bits: the slot that undoes this dead one's journal now, or 0; above:
               // how many claims there were (Participants::claim)
  std::uint32_t unused;
  std::uint64_t ranks;  // of the locks it holds (heap/ordered_guard.hpp); its thread's own
  base::Relaxed<std::uint32_t>
      spare_caches;  // + 1: caches that others detached from a destroyed heap. Only this slot
                     // uses them again, because its thread may be about to look at one
  std::uint32_t padding;
  std::uint64_t reserved[4];
  Journal journal;
};

}  // namespace extmem::shared
