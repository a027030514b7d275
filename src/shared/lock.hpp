// Lock: a futex lock that knows its owner.
//
// What it is: one 32-bit word in the control segment: 0 free, else the owner's thread slot, plus a bit that says
// that somebody sleeps. Not glibc's robust mutex, which keeps pointers in the segment.
// Thread-safety: that is its purpose.
// Invariants:
//  1. word == 0, or word's low 31 bits name the holder: a slot (a thread id where the lock belongs to no domain).
//  2. Only the holder stores 0.
#pragma once

#include <atomic>
#include <cstdint>

#include "shared/thread_annotations.hpp"

namespace extmem::shared {

class EXTMEM_CAPABILITY("lock") Lock {
 public:
  /// False when the calling slot holds the lock already (a callback that calls back): taking it would hang.
  [[nodiscard]] bool lock(std::uint32_t slot, bool process_shared) noexcept EXTMEM_TRY_ACQUIRE(true) {
    std::uint32_t free = 0;
    // Acquire: pairs with the release in unlock(), so that the holder sees what the last one wrote.
    if (word_.compare_exchange_strong(free, slot, std::memory_order_acquire, std::memory_order_relaxed)) return true;
    return lock_slow(slot, process_shared);
  }
  void unlock(bool process_shared) noexcept EXTMEM_RELEASE() {
    // Release: publishes what was written under the lock to the next acquire.
    if ((word_.exchange(0, std::memory_order_release) & kSleepers) != 0) wake(process_shared);
  }
  /// The holder's slot, or 0.
  [[nodiscard]] std::uint32_t holder() const noexcept { return word_.load(std::memory_order_relaxed) & ~kSleepers; }

 private:
  static constexpr std::uint32_t kSleepers = 1u << 31;
  bool lock_slow(std::uint32_t slot, bool process_shared) noexcept;
  void wake(bool process_shared) noexcept;
  std::atomic<std::uint32_t> word_;
};

/// Holds a Lock for a scope. Requires: check held() before relying on it.
class EXTMEM_SCOPED_CAPABILITY LockGuard {
 public:
  LockGuard(Lock& lock, std::uint32_t slot, bool process_shared) noexcept EXTMEM_ACQUIRE(lock)
      : lock_(lock), shared_(process_shared), held_(lock.lock(slot, process_shared)) {}
  LockGuard(const LockGuard&) = delete;
  ~LockGuard() EXTMEM_RELEASE() {
    if (held_) lock_.unlock(shared_);
  }
  [[nodiscard]] bool held() const noexcept { return held_; }

 private:
  Lock& lock_;
  bool shared_;
  bool held_;
};

}  // namespace extmem::shared
