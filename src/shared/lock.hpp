// Lock: a futex lock that knows its owner.
//
// What it is: one 32-bit word in the control segment: 0 free, else the owner's thread slot, plus a bit that says
// that somebody sleeps. Not glibc's robust mutex, which keeps pointers in the segment. Behind it a word that counts the
// holders: so somebody who only looks (heap/inspector.hpp) can tell that nobody had the lock while it read.
// A dead owner: whoever waits finds it out (Participants::dead), undoes what the owner had in flight and takes the lock
// over ("inherits" it). What the lock guards and no journal keeps may then be half-done: the heir repairs it.
// A stopped owner is not dead: after kPatienceNs the wait ends with ETIMEDOUT, and the lock is left alone.
// Thread-safety: that is its purpose.
// Invariants:
//  1. word == 0, or word's low 31 bits name the holder: a slot (a thread id where the lock belongs to no domain).
//  2. Only the holder, or the cleaner of a dead holder, stores 0.
//  3. A slot whose thread has died stays that thread's until no lock names it any more.
//  4. `turns` changes after a holder's word is there and before the holder changes anything that the lock guards.
#pragma once

#include <atomic>
#include <cstdint>

#include "base/error.hpp"
#include "shared/participants.hpp"
#include "shared/thread_annotations.hpp"

namespace extmem::shared {

enum class Locked : std::uint8_t {
  yes,
  inherited,  ///< yes, from a dead holder: repair what the lock guards
  mine,       ///< no: the calling slot holds it already (a callback that calls back); taking it would hang
  stuck,      ///< no: its living holder keeps it for longer than kPatienceNs
};

class EXTMEM_CAPABILITY("lock") Lock {
 public:
  static constexpr std::uint64_t kPatienceNs = 5'000'000'000;
  /// What this process uses: kPatienceNs, less in tests. Relaxed: orders nothing.
  static inline std::atomic<std::uint64_t> patience_ns{kPatienceNs};

  [[nodiscard]] Locked lock(std::uint32_t slot,
                            const Peers& peers) noexcept EXTMEM_NO_THREAD_SAFETY_ANALYSIS {
    std::uint32_t free = 0;
    // Acquire: pairs with the release in unlock(), so that the holder sees what the last one wrote.
    if (word_.compare_exchange_strong(free, slot, std::memory_order_acquire, std::memory_order_relaxed)) {
      begin_turn();
      return Locked::yes;
    }
    const Locked locked = lock_slow(slot, peers);
    if (locked <= Locked::inherited) begin_turn();
    return locked;
  }
  void unlock(const Peers& peers) noexcept EXTMEM_RELEASE() {
    // Release: publishes what was written under the lock to the next acquire.
    if ((word_.exchange(0, std::memory_order_release) & kSleepers) != 0) wake(peers);
  }
  // For who reads the words from a file: where they are, and what of the first is the holder.
  static constexpr std::uint64_t kTurnsAt = 4;
  static constexpr std::uint32_t kHolderMask = ~(1u << 31);
  /// The holder's slot, or 0.
  [[nodiscard]] std::uint32_t holder() const noexcept {
    return word_.load(std::memory_order_relaxed) & ~kSleepers;
  }
  /// Opens a lock that a dead slot holds and whose guarded words are all journaled. Requires: its journal is undone,
  /// this process cleans its participant.
  void break_dead(std::uint32_t dead_slot, const Peers& peers) noexcept;

 private:
  static constexpr std::uint32_t kSleepers = 1u << 31;
  Locked lock_slow(std::uint32_t slot, const Peers& peers) noexcept;
  void wake(const Peers& peers) noexcept;
  void begin_turn() noexcept {
    turns_.store(turns_.load(std::memory_order_relaxed) + 1, std::memory_order_relaxed);
    // Whoever sees a store of this turn sees its count too, if he reads that later.
    std::atomic_thread_fence(std::memory_order_release);
  }
  std::atomic<std::uint32_t> word_;
  std::atomic<std::uint32_t> turns_;  // written by the holder only
};

static_assert(sizeof(Lock) == 8);

/// ETIMEDOUT with the stopped holder's process in its message, which lives until this thread's next such error.
Error stuck_error(const Peers& peers, std::uint32_t slot) noexcept;

/// Holds a Lock for a scope. Requires: check held() before relying on it.
class EXTMEM_SCOPED_CAPABILITY LockGuard {
 public:
  LockGuard(Lock& lock, std::uint32_t slot, const Peers& peers) noexcept EXTMEM_ACQUIRE(lock)
      : lock_(lock),
        peers_(peers),
        locked_(lock.lock(slot, peers)),
        holder_(locked_ == Locked::stuck ? lock.holder() : 0) {}
  LockGuard(const LockGuard&) = delete;
  ~LockGuard() EXTMEM_RELEASE() {
    if (held()) lock_.unlock(peers_);
  }
  [[nodiscard]] bool held() const noexcept { return locked_ <= Locked::inherited; }
  [[nodiscard]] bool inherited() const noexcept { return locked_ == Locked::inherited; }
  /// Why it is not held: `if_mine` where this thread has it already, else ETIMEDOUT.
  [[nodiscard]] Error refused(Error if_mine) const noexcept {
    return locked_ == Locked::stuck ? stuck_error(peers_, holder_) : if_mine;
  }

 private:
  Lock& lock_;
  Peers peers_;
  Locked locked_;
  std::uint32_t holder_;
};

}  // namespace extmem::shared
