// Transaction: a multi-step change of locked metadata that happens whole or not at all.
//
// What it is: an undo journal. Before a word changes, its offset and old value are appended to the journal of the
// thread's slot; commit empties the journal. Whoever finds the thread dead, or the thread itself when a later
// step fails, writes the old values back in reverse. One mechanism serves every structure, so there is no
// recovery code per operation that could be wrong (docs/decisions/0003-undo-journal.md).
// Thread-safety: one thread; it holds the locks of everything it changes until commit or rollback.
// Invariants:
//  1. A word is journaled before its first change in a transaction.
//  2. Process death needs program order only, so compiler fences order journal and word.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "base/always_inline.hpp"
#include "base/crash_point.hpp"
#include "base/relaxed.hpp"
#include "shared/thread_slot.hpp"

namespace extmem::shared {

/// Writes the old values of an unfinished transaction back, newest first. Idempotent: may itself be cut short.
/// An entry that names no word of the segment's `bytes` bytes is damage, and left out.
inline void undo(std::byte* base, Journal& journal, std::uint64_t bytes = std::uint64_t{1} << 56) noexcept {
  for (std::uint32_t left =
           std::min(journal.count.load(std::memory_order_acquire), std::uint32_t{kJournalCapacity});
       left > 0; --left) {
    const JournalEntry entry = journal.entries[left - 1];
    const std::uint64_t size = entry.where & 0xff;
    const std::uint64_t offset = entry.where >> 8;
    if ((size != 2 && size != 4 && size != 8) || offset % size != 0 || offset + size > bytes) continue;
    std::byte* where = base + offset;
    // The size is one of 2, 4, 8; relaxed atomic stores because lock-free readers may look at the word.
    switch (size) {
      case 2:
        reinterpret_cast<std::atomic<std::uint16_t>*>(where)->store(static_cast<std::uint16_t>(entry.old),
                                                                    std::memory_order_relaxed);
        break;
      case 4:
        reinterpret_cast<std::atomic<std::uint32_t>*>(where)->store(static_cast<std::uint32_t>(entry.old),
                                                                    std::memory_order_relaxed);
        break;
      default:
        reinterpret_cast<std::atomic<std::uint64_t>*>(where)->store(entry.old, std::memory_order_relaxed);
    }
    std::atomic_signal_fence(std::memory_order_seq_cst);
    base::crash_point("undo.step");
  }
  journal.count.store(0, std::memory_order_release);
}

class Transaction {
 public:
  Transaction(std::byte* base, Journal& journal) noexcept : base_(base), journal_(journal) {
    base::crash_point("transaction.begun");
  }
  Transaction(const Transaction&) = delete;
  EXTMEM_ALWAYS_INLINE ~Transaction() {
    if (journal_.count.load(std::memory_order_relaxed) != 0) [[unlikely]]
      undo(base_, journal_);
  }

  /// Changes a word of the segment. Requires: room(); the word's lock is held.
  template <typename T>
  void set(base::Relaxed<T>& word, std::type_identity_t<T> value) noexcept {
    static_assert(sizeof(T) == 2 || sizeof(T) == 4 || sizeof(T) == 8);
    const T old = word.get();
    if (old == value) return;
    const std::uint32_t n = journal_.count.load(std::memory_order_relaxed);
    const auto offset = static_cast<std::uint64_t>(reinterpret_cast<std::byte*>(&word) - base_);
    journal_.entries[n] = JournalEntry{offset << 8 | sizeof(T), static_cast<std::uint64_t>(old)};
    std::atomic_signal_fence(std::memory_order_seq_cst);
    journal_.count.store(n + 1, std::memory_order_relaxed);
    std::atomic_signal_fence(std::memory_order_seq_cst);
    base::crash_point("transaction.journaled");
    word.set(value);
    std::atomic_signal_fence(std::memory_order_seq_cst);
    base::crash_point("transaction.changed");
  }
  template <typename T>
  void add(base::Relaxed<T>& word, std::type_identity_t<T> delta) noexcept {
    set(word, static_cast<T>(word.get() + delta));
  }

  /// Words that can still be changed.
  [[nodiscard]] std::uint32_t room() const noexcept {
    return kJournalCapacity - journal_.count.load(std::memory_order_relaxed);
  }
  void commit() noexcept {
    base::crash_point("transaction.complete");
    std::atomic_signal_fence(std::memory_order_seq_cst);
    journal_.count.store(0, std::memory_order_release);
    base::crash_point("transaction.committed");
  }
  void rollback() noexcept { undo(base_, journal_); }

 private:
  friend class Writer;
  std::byte* base_;
  Journal& journal_;
};

/// Part of a transaction whose words are changed in a row by inlined code: what would be loaded anew for each word stays in
/// registers, as long as nothing takes the Writer's address. Meanwhile the Transaction itself is not used.
class Writer {
 public:
  EXTMEM_ALWAYS_INLINE explicit Writer(Transaction& tx) noexcept
      : base_(tx.base_),
        journal_(tx.journal_),
        count_(tx.journal_.count.load(std::memory_order_relaxed)),
        watched_(base::crash_point_hook.load(std::memory_order_relaxed) != nullptr) {}
  Writer(const Writer&) = delete;

  /// As Transaction::set. A word that keeps its value is journaled, too.
  template <typename T>
  EXTMEM_ALWAYS_INLINE void set(base::Relaxed<T>& word, std::type_identity_t<T> value) noexcept {
    static_assert(sizeof(T) == 2 || sizeof(T) == 4 || sizeof(T) == 8);
    const auto offset = static_cast<std::uint64_t>(reinterpret_cast<std::byte*>(&word) - base_);
    JournalEntry& entry = journal_.entries[count_];
    entry.where = offset << 8 | sizeof(T);
    entry.old = static_cast<std::uint64_t>(word.get());
    std::atomic_signal_fence(std::memory_order_seq_cst);
    journal_.count.store(++count_, std::memory_order_relaxed);
    std::atomic_signal_fence(std::memory_order_seq_cst);
    if (watched_) [[unlikely]]
      base::crash_point("transaction.journaled");
    word.set(value);
    std::atomic_signal_fence(std::memory_order_seq_cst);
    if (watched_) [[unlikely]]
      base::crash_point("transaction.changed");
  }
  template <typename T>
  EXTMEM_ALWAYS_INLINE void add(base::Relaxed<T>& word, std::type_identity_t<T> delta) noexcept {
    set(word, static_cast<T>(word.get() + delta));
  }

 private:
  std::byte* base_;
  Journal& journal_;
  std::uint32_t count_;
  bool watched_;
};

}  // namespace extmem::shared
