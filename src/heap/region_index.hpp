// RegionIndex: address -> region of this process.
//
// What it is: the process-local side table of regions, sorted by address, under a sequence lock: readers never write.
// Thread-safety: find() any thread; insert/erase under Directory::region_lock.
// Invariants: entries do not overlap; `sequence` is odd while a writer is at work and changes with every write.
#pragma once

#include <atomic>
#include <cstdint>

#include "alloc/page_space.hpp"
#include "base/relaxed.hpp"
#include "extmem/result.hpp"
#include "os/backing.hpp"

namespace extmem::heap {

/// What this process knows of a region beside the shared record.
struct RegionLocal {
  // Relaxed: a look-up may read them while the slot becomes another region's; the index's sequence tells it so.
  base::Relaxed<std::uintptr_t> base;
  base::Relaxed<std::uint64_t> length;
  alloc::PageDesc* descs;
  base::Relaxed<std::uint32_t> page_shift;
  base::Relaxed<std::uint32_t> slot;
  base::Relaxed<std::uint32_t> heap;
  std::uint32_t reverse_words;          // of the index from IOVA to offset
  std::atomic<std::uint32_t*> reverse;  // built when first wanted; release/acquire publishes its words
  std::uint64_t reverse_bytes;
  os::Mapping mapping;  // of an own backing
  BackingKind kind;
  std::uint32_t generation;  // of the region that this is about
  // Why it could not be mapped here, or null; it is not tried again by itself. Relaxed: a look-up may read it at any time.
  base::Relaxed<const ErrorInfo*> refused;
};

class RegionIndex {
 public:
  struct Entry {
    base::Relaxed<std::uintptr_t> base;
    base::Relaxed<std::uint64_t> length;
    base::Relaxed<std::uint32_t> slot;
  };
  /// `sequence`: the word to use: other processes may add 2 to it when what our threads remember is stale.
  void bind(Entry* entries, std::atomic<std::uint64_t>& sequence, std::uint64_t first_sequence) noexcept {
    entries_ = entries;
    sequence_ = &sequence;
    sequence.store(first_sequence, std::memory_order_relaxed);
  }
  /// Another word from now on, whose value no thread has seen yet. The old one stays as it is: where threads may have
  /// seen it, it must change after this.
  void rebind(std::atomic<std::uint64_t>& sequence) noexcept {
    bind(entries_, sequence, (sequence_->load(std::memory_order_relaxed) | 1) + 1);
  }
  /// In a fork's child: whether its parent was writing.
  [[nodiscard]] bool torn() const noexcept { return (sequence_->load(std::memory_order_relaxed) & 1) != 0; }
  void clear() noexcept { count_ = 0; }
  [[nodiscard]] std::uint64_t sequence() const noexcept { return sequence_->load(std::memory_order_acquire); }

  [[nodiscard]] const std::atomic<std::uint64_t>* word() const noexcept { return sequence_; }
  /// Makes every thread of this process forget what it remembers: a heap goes. Requires: the region lock.
  void touch() noexcept {
    begin_write();
    end_write();
  }

  /// The slot of the region that holds the address, or 0; and the sequence at which that was true.
  std::uint32_t find(std::uintptr_t address, std::uint64_t& sequence) const noexcept {
    for (;;) {
      sequence = sequence_->load(std::memory_order_acquire);  // pairs with the release in end_write()
      std::uint32_t found = 0;
      const std::uint32_t at = upper_bound(address);
      if (at > 0 && address - entries_[at - 1].base < entries_[at - 1].length) found = entries_[at - 1].slot;
      std::atomic_thread_fence(std::memory_order_acquire);
      if ((sequence & 1) == 0 && sequence_->load(std::memory_order_relaxed) == sequence) return found;
    }
  }
  /// A region that overlaps [base, base + length), or 0. Requires: the region lock.
  [[nodiscard]] std::uint32_t overlapping(std::uintptr_t base, std::uint64_t length) const noexcept {
    const std::uint32_t at = upper_bound(base);
    if (at > 0 && base - entries_[at - 1].base < entries_[at - 1].length) return entries_[at - 1].slot;
    if (at < count_ && entries_[at].base - base < length) return entries_[at].slot;
    return 0;
  }
  void insert(std::uintptr_t base, std::uint64_t length, std::uint32_t slot) noexcept {
    const std::uint32_t at = upper_bound(base);
    begin_write();
    for (std::uint32_t i = count_; i > at; --i) entries_[i] = entries_[i - 1];
    entries_[at].base = base;
    entries_[at].length = length;
    entries_[at].slot = slot;
    count_.add(1);
    end_write();
  }
  void erase(std::uintptr_t base) noexcept {
    const std::uint32_t at = upper_bound(base) - 1;
    if (at >= count_ || entries_[at].base != base) return;
    begin_write();
    for (std::uint32_t i = at; i + 1 < count_; ++i) entries_[i] = entries_[i + 1];
    count_.add(~std::uint32_t{0});
    end_write();
  }

 private:
  [[nodiscard]] std::uint32_t upper_bound(std::uintptr_t address) const noexcept {
    std::uint32_t low = 0;
    std::uint32_t high = count_;
    while (low < high) {
      const std::uint32_t middle = (low + high) / 2;
      if (entries_[middle].base <= address) {
        low = middle + 1;
      } else {
        high = middle;
      }
    }
    return low;
  }
  void begin_write() noexcept {
    sequence_->fetch_add(1, std::memory_order_relaxed);
    std::atomic_thread_fence(
        std::memory_order_release);  // readers that see a changed entry see the odd sequence
  }
  void end_write() noexcept { sequence_->fetch_add(1, std::memory_order_release); }

  Entry* entries_ = nullptr;
  base::Relaxed<std::uint32_t> count_;
  std::atomic<std::uint64_t>* sequence_ = nullptr;
};

}  // namespace extmem::heap
