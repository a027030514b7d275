// RegionIndex: address -> region of this process.
//
// What it is: the process-local side table of regions, sorted by address, and before it a flat map of the address space in
// granules of 64 MiB, by which an address finds its region without a search. Both under a sequence lock: readers never write.
// Thread-safety: find() any thread; insert/erase under Directory::region_lock.
// Invariants:
//  1. Entries do not overlap; `sequence` is odd while a writer is at work and changes with every write.
//  2. A granule's word names the regions that lie in it (see Granule); 0: none.
//  3. A slot's base and length (RegionLocal) are those of its entry while it has one.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <span>

#include "alloc/page_space.hpp"
#include "base/relaxed.hpp"
#include "extmem/result.hpp"
#include "os/backing.hpp"
#include "os/mapping.hpp"

namespace extmem::heap {

/// What this process knows of a region beside the shared record.
struct alignas(64) RegionLocal {
  // What look-ups read: one cache line. Relaxed: they may read while the slot becomes another region's; the index's sequence
  // tells it so.
  base::Relaxed<std::uintptr_t> base;
  base::Relaxed<std::uint64_t> length;
  base::Relaxed<std::uint32_t> slot;
  base::Relaxed<std::uint32_t> heap;
  base::Relaxed<std::uint32_t> generation;  // of the region that this is about
  base::Relaxed<std::uint32_t> page_shift;
  base::Relaxed<const std::uint32_t*>
      iova_frames;  // of a flat IOVA table of 4 bytes a page; null: another form
  base::Relaxed<std::uint64_t> iova_base;
  base::Relaxed<std::uint32_t> iova_shift;
  base::Relaxed<std::uint32_t> iova_bad;  // 1: some of its pages have no IOVA
  // What a thread remembers of it (ThreadMemory): a copy, so that a free in another region than the last is quick. Relaxed likewise.
  base::Relaxed<std::uint64_t> slab_mapped;
  base::Relaxed<std::uint64_t> exact;
  base::Relaxed<std::uint64_t> cpu;
  base::Relaxed<const base::Relaxed<std::uint32_t>*> slab_map;
  // The rest.
  alloc::PageDesc* descs;
  std::atomic<std::uint32_t*> reverse;  // built when first wanted; release/acquire publishes its words
  std::uint64_t reverse_bytes;
  std::uint32_t reverse_words;  // of the index from IOVA to offset
  os::Mapping mapping;          // of an own backing
  BackingKind kind;
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
  /// One granule of addresses:  63    32 31      16 15      0
  ///                           | split  | upper   | lower   |    slots; 0: none
  /// Addresses whose offset in the granule is below `split` can only be lower's, the others only upper's (kMany: of several,
  /// which the entries tell apart).
  using Granule = base::Relaxed<std::uint64_t>;
  static constexpr unsigned kGranuleShift = 26;
  static constexpr std::uint64_t kGranuleBytes = std::uint64_t{1} << kGranuleShift;
  static constexpr std::uint64_t kGranules = std::uint64_t{1} << (47 - kGranuleShift);  // beyond: a search
  static constexpr std::uint64_t kMapBytes = kGranules * sizeof(Granule);
  static constexpr std::uint32_t kMany = 0xffff;
  /// Room for twice as many, so that there is some at both ends, and for what a reader takes for entries while a writer is at work.
  static constexpr std::uint64_t entry_bytes(std::uint64_t slots) noexcept {
    return 3 * slots * sizeof(Entry);
  }

  /// `entries`: entry_bytes(slots) of zeroes; there are at most `slots` regions. `map`: kMapBytes of zeroes, which take memory where
  /// regions are. `sequence`: the word to use: other processes may add 2 to it when what our threads remember is stale.
  void bind(Entry* entries, std::uint32_t slots, Granule* map, const RegionLocal* locals,
            std::uint32_t* elsewhere, std::atomic<std::uint64_t>& sequence,
            std::uint64_t first_sequence) noexcept {
    entries_ = entries;
    slots_ = slots;
    if (count_ == 0) begin_ = slots;
    map_ = map;
    elsewhere_ = elsewhere;
    locals_ = locals;
    sequence_ = &sequence;
    sequence.store(first_sequence, std::memory_order_relaxed);
  }
  /// Another word from now on, whose value no thread has seen yet. The old one stays as it is: where threads may have
  /// seen it, it must change after this.
  void rebind(std::atomic<std::uint64_t>& sequence) noexcept {
    bind(entries_, slots_, map_, locals_, elsewhere_, sequence,
         (sequence_->load(std::memory_order_relaxed) | 1) + 1);
  }
  /// In a fork's child: whether its parent was writing.
  [[nodiscard]] bool torn() const noexcept { return (sequence_->load(std::memory_order_relaxed) & 1) != 0; }
  /// Forgets all regions. Requires: nobody looks.
  void clear() noexcept {
    count_ = 0;
    begin_ = slots_;
    os::discard(map_, kMapBytes);  // reads as zeroes again
  }
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
      std::uint32_t found = kMany;
      if (const std::uint64_t granule = address >> kGranuleShift; granule < kGranules) [[likely]] {
        // No branch between the two slots: it could not be predicted.
        const std::uint64_t word = map_[granule];
        found = static_cast<std::uint16_t>(word >> ((address & (kGranuleBytes - 1)) < word >> 32 ? 0 : 16));
      }
      if (found == kMany) [[unlikely]] {
        found = search(address);
      } else if (address - locals_[found].base >= locals_[found].length) {
        found = 0;  // slot 0 is no region's: its length is 0
      }
      std::atomic_thread_fence(std::memory_order_acquire);
      if ((sequence & 1) == 0 && sequence_->load(std::memory_order_relaxed) == sequence) return found;
    }
  }
  /// A region that overlaps [base, base + length), or 0. Requires: the region lock.
  [[nodiscard]] std::uint32_t overlapping(std::uintptr_t base, std::uint64_t length) const noexcept {
    const std::uint32_t at = upper_bound(base);
    if (at > 0 && base - entry(at - 1).base < entry(at - 1).length) return entry(at - 1).slot;
    if (at < count_ && entry(at).base - base < length) return entry(at).slot;
    return 0;
  }

  // Regions of the domain that are not mapped in this process, as far as it has looked, and perhaps some that were: who asks
  // looks again. Requires: the region lock.
  void forget_elsewhere() noexcept { elsewhere_count_ = 0; }
  void note_elsewhere(std::uint32_t slot) noexcept {
    const auto known = elsewhere();
    if (std::find(known.begin(), known.end(), slot) == known.end()) elsewhere_[elsewhere_count_++] = slot;
  }
  /// The same. Requires: it is not noted.
  void add_elsewhere(std::uint32_t slot) noexcept { elsewhere_[elsewhere_count_++] = slot; }
  [[nodiscard]] std::span<const std::uint32_t> elsewhere() const noexcept {
    return {elsewhere_, elsewhere_count_};
  }

  void insert(std::uintptr_t base, std::uint64_t length, std::uint32_t slot) noexcept {
    const std::uint32_t at = upper_bound(base);
    begin_write();
    // The shorter part moves: none where each region lies above the last, or below, as the kernel places them.
    const bool front = at < count_ - at;
    if (front ? begin_ == 0 : begin_ + count_ == 2 * slots_) move_entries((2 * slots_ - count_) / 2);
    if (front) begin_.add(~std::uint32_t{0});
    Entry* const entries = &entry(0);
    if (front) {
      for (std::uint32_t i = 0; i < at; ++i) entries[i] = entries[i + 1];
    } else {
      for (std::uint32_t i = count_; i > at; --i) entries[i] = entries[i - 1];
    }
    entries[at].base = base;
    entries[at].length = length;
    entries[at].slot = slot;
    count_.add(1);
    redraw(base, length, slot);
    end_write();
  }
  void erase(std::uintptr_t base) noexcept {
    const std::uint32_t at = upper_bound(base) - 1;
    if (at >= count_ || entry(at).base != base) return;
    begin_write();
    Entry* const entries = &entry(0);
    const std::uint64_t length = entries[at].length;
    if (at < count_ / 2) {
      for (std::uint32_t i = at; i > 0; --i) entries[i] = entries[i - 1];
      begin_.add(1);
    } else {
      for (std::uint32_t i = at, last = count_ - 1; i < last; ++i) entries[i] = entries[i + 1];
    }
    count_.add(~std::uint32_t{0});
    redraw(base, length, 0);
    end_write();
  }

 private:
  /// By the entries. Out of line: few regions lie three to a granule.
  [[nodiscard, gnu::noinline]] std::uint32_t search(std::uintptr_t address) const noexcept {
    const std::uint32_t at = upper_bound(address);
    if (at > 0 && address - entry(at - 1).base < entry(at - 1).length) return entry(at - 1).slot;
    return 0;
  }
  /// Writes the granules of [base, base + length) anew, those that lie wholly inside as `slot`. Requires: begin_write(); the
  /// entries are as they shall be.
  void redraw(std::uintptr_t base, std::uint64_t length, std::uint32_t slot) noexcept {
    const std::uint64_t first = base >> kGranuleShift;
    const std::uint64_t last = std::min((base + (length - 1)) >> kGranuleShift, kGranules - 1);
    const std::uint64_t inside = slot == 0 ? 0 : std::uint64_t{slot} | kGranuleBytes << 32;
    for (std::uint64_t granule = first; granule <= last; ++granule) {
      const bool edge = granule == first || granule == last;
      map_[granule] = edge ? granule_word(granule << kGranuleShift) : inside;
    }
  }
  [[nodiscard]] std::uint64_t granule_word(std::uintptr_t start) const noexcept {
    std::uint32_t at = upper_bound(start);
    if (at > 0 && start - entry(at - 1).base < entry(at - 1).length) --at;  // it reaches into the granule
    std::uint32_t slots[2] = {0, 0};
    std::uint64_t split = kGranuleBytes;
    for (std::uint32_t n = 0; at < count_ && entry(at).base < start + kGranuleBytes; ++at, ++n) {
      if (n == 2) return std::uint64_t{kMany} << 16;  // split 0: every address is one of many
      slots[n] = entry(at).slot;
      if (slots[n] == kMany) return std::uint64_t{kMany} << 16;
      if (n == 1) split = entry(at).base - start;
    }
    return slots[0] | std::uint64_t{slots[1]} << 16 | split << 32;
  }
  [[nodiscard]] std::uint32_t upper_bound(std::uintptr_t address) const noexcept {
    std::uint32_t low = 0;
    std::uint32_t high = count_;
    while (low < high) {
      const std::uint32_t middle = (low + high) / 2;
      if (entry(middle).base <= address) {
        low = middle + 1;
      } else {
        high = middle;
      }
    }
    return low;
  }
  [[nodiscard]] Entry& entry(std::uint32_t i) const noexcept { return entries_[begin_ + i]; }
  /// So that they begin there. Once in a while: then half of the room is free on each side.
  void move_entries(std::uint32_t begin) noexcept {
    const std::uint32_t from = begin_;
    if (begin < from) {
      for (std::uint32_t i = 0; i < count_; ++i) entries_[begin + i] = entries_[from + i];
    } else {
      for (std::uint32_t i = count_; i > 0; --i) entries_[begin + i - 1] = entries_[from + i - 1];
    }
    begin_ = begin;
  }
  void begin_write() noexcept {
    sequence_->fetch_add(1, std::memory_order_relaxed);
    std::atomic_thread_fence(
        std::memory_order_release);  // readers that see a changed entry see the odd sequence
  }
  void end_write() noexcept { sequence_->fetch_add(1, std::memory_order_release); }

  Entry* entries_ = nullptr;
  Granule* map_ = nullptr;
  const RegionLocal* locals_ = nullptr;  // by slot
  std::uint32_t slots_ = 0;
  base::Relaxed<std::uint32_t>
      begin_;  // the entries are entries_[begin_, begin_ + count_), inside [0, 2 * slots_)
  base::Relaxed<std::uint32_t> count_;
  std::uint32_t* elsewhere_ = nullptr;
  std::uint32_t elsewhere_count_ = 0;
  std::atomic<std::uint64_t>* sequence_ = nullptr;
};

}  // namespace extmem::heap
