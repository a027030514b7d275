#include "shared/handshake.hpp"

#include <cerrno>

#include "os/futex.hpp"
#include "os/membarrier.hpp"
#include "os/thread.hpp"
#include "shared/lock.hpp"

namespace extmem::shared {

namespace {
constexpr std::int64_t kPausedForLongNs = 10'000'000;
constexpr int kSpins = 200;
constexpr int kYields = 200;
constexpr std::uint64_t kNapNs = 50'000;
constexpr int kRoundsPerQuestion =
    16;  // whether the owner lives: a system call, while a yield may take milliseconds
}  // namespace

bool Handshake::enter_slow(bool process_shared) noexcept {
  for (;;) {
    busy_.store(0, std::memory_order_release);
    std::uint32_t request = request_.load(std::memory_order_acquire);
    if (request & kPause) {
      // The pauser works for microseconds, or is itself preempted: spin a little, then sleep.
      for (int spin = 0; spin < 100 && (request & kPause); ++spin) {
        os::cpu_relax();
        request = request_.load(std::memory_order_acquire);
      }
      if ((request & kPause) != 0 && os::futex_wait(request_, request, process_shared ? kPausedForLongNs : -1,
                                                    process_shared) == ETIMEDOUT) {
        return false;
      }
      continue;
    }
    busy_.store(1, std::memory_order_relaxed);
    // Without membarrier this fence pairs with the one in fence().
    if (request & kFence) {
      std::atomic_thread_fence(std::memory_order_seq_cst);
    } else {
      std::atomic_signal_fence(std::memory_order_seq_cst);
    }
    if ((request_.load(std::memory_order_acquire) & kPause) == 0) return true;
  }
}

void Handshake::fence(bool has_membarrier, bool process_shared) noexcept {
  if (has_membarrier) os::membarrier(process_shared);
  std::atomic_thread_fence(std::memory_order_seq_cst);
}

Handshake::Stand Handshake::wait(const Peers& peers, std::uint32_t owner) const noexcept {
  std::uint64_t since = 0;
  for (int round = 0; busy_.load(std::memory_order_acquire) != 0; ++round) {
    if (round < kSpins) {
      os::cpu_relax();
      continue;
    }
    // The owner was preempted inside an operation of some nanoseconds, is stopped there, or died there.
    if (peers.all != nullptr && (round - kSpins) % kRoundsPerQuestion == 0) {
      const std::uint64_t now = os::monotonic_ns();
      if (since == 0) since = now;
      if (peers.all->slot_dead(owner)) return Stand::dead;
      if (now - since > Lock::patience_ns.load(std::memory_order_relaxed)) return Stand::stuck;
    }
    if (round < kSpins + kYields) {
      os::yield();
    } else {
      os::sleep_ns(kNapNs);
    }
  }
  return Stand::still;
}

void Handshake::resume(bool process_shared) noexcept {
  request_.fetch_and(~kPause, std::memory_order_release);
  os::futex_wake(request_, 1, process_shared);
}

}  // namespace extmem::shared
