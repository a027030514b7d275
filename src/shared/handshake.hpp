// Handshake: how others stop a thread at the boundary of its operation, at no cost to the thread.
//
// What it is: an asymmetric Dekker lock. The owner marks itself busy around each operation with plain stores; who
// wants it to stand still asks, makes every CPU fence (membarrier), and waits until it is not busy. So a thread that
// sleeps outside an operation never delays anybody, and one inside delays for nanoseconds.
// The owner may die inside an operation: then it never leaves it, and wait() says so. The pauser may die while the
// owner stands: then whoever takes over the pauser's lock resumes the owner.
// Thread-safety: one owner; at most one pauser at a time (it holds the lock of what the handshake guards).
// Invariants:
//  1. Between a returned pause() and resume() the owner is outside its operations.
//  2. What the owner wrote before is visible to the pauser, and what the pauser writes is visible to the owner after.
#pragma once

#include <atomic>
#include <cstdint>

#include "shared/participants.hpp"

// Where one may load an atomic word by hand: not where ThreadSanitizer has to see it.
#if defined(__x86_64__) && !defined(__SANITIZE_THREAD__)
#define EXTMEM_PLAIN_X86
#if defined(__has_feature)
#if __has_feature(thread_sanitizer)
#undef EXTMEM_PLAIN_X86
#endif
#endif
#endif

namespace extmem::shared {

class Handshake {
 public:
  /// Requires: no owner yet. Without membarrier the owner fences by itself, at each operation.
  void reset(bool has_membarrier) noexcept {
    busy_.store(0, std::memory_order_relaxed);
    request_.store(has_membarrier ? 0 : kFence, std::memory_order_relaxed);
  }

  /// Begins an operation of the owner, unless somebody wants it to stand still: then nothing has begun.
  /// A fast path that gets false leaves its work to a slow one, which calls enter().
  bool try_enter() noexcept {
    busy_.store(1, std::memory_order_relaxed);
    std::atomic_signal_fence(
        std::memory_order_seq_cst);  // the pauser's membarrier makes a real fence of this
    if (!asked()) [[likely]]
      return true;
    leave();
    return false;
  }
  /// Begins an operation of the owner; waits while it is paused. False: between processes, when it is paused for so
  /// long that the pauser may be dead. Then the lock that the pauser holds is worth a look.
  [[nodiscard]] bool enter(bool process_shared) noexcept { return try_enter() || enter_slow(process_shared); }
  void leave() noexcept {
    busy_.store(0, std::memory_order_release);  // pairs with the acquire in wait()
  }

  /// Says that the owner is outside: it is dead, and whatever it left half-done is known by other means.
  void still() noexcept { busy_.store(0, std::memory_order_relaxed); }
  /// Whether the owner is inside an operation. Of use only where it cannot move: it is dead, or paused.
  [[nodiscard]] bool busy() const noexcept { return busy_.load(std::memory_order_acquire) != 0; }

  /// Asks the owner to stop. Several may be asked, then fence() once, then wait() for each.
  void ask() noexcept { request_.fetch_or(kPause, std::memory_order_seq_cst); }
  static void fence(bool has_membarrier, bool process_shared) noexcept;
  /// Waits until the owner, the thread of slot `owner`, stands still.
  enum class Stand : std::uint8_t {
    still,
    dead,   ///< it died inside an operation, which stays half-done
    stuck,  ///< it does not leave its operation: its process is stopped
  };
  [[nodiscard]] Stand wait(const Peers& peers, std::uint32_t owner) const noexcept;
  void resume(bool process_shared) noexcept;

 private:
  static constexpr std::uint32_t kPause = 1;
  static constexpr std::uint32_t kFence = 2;
  bool enter_slow(bool process_shared) noexcept;
  /// Acquire: pairs with the release in resume().
  bool asked() const noexcept {
#if defined(EXTMEM_PLAIN_X86)
    // Compilers load an atomic word into a register first. Every load acquires here, and `memory` keeps the compiler from moving any.
    bool asked;
    __asm__ volatile("cmpl $0, %1" : "=@ccne"(asked) : "m"(request_) : "memory");
    return asked;
#else
    return request_.load(std::memory_order_acquire) != 0;
#endif
  }

  std::atomic<std::uint32_t> busy_;
  std::atomic<std::uint32_t> request_;  // also the futex word on which a paused owner sleeps
};

}  // namespace extmem::shared
