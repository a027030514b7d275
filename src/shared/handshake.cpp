#include "shared/handshake.hpp"

#include "os/futex.hpp"
#include "os/membarrier.hpp"
#include "os/thread.hpp"

namespace extmem::shared {

void Handshake::enter_slow(bool process_shared) noexcept {
  for (;;) {
    busy_.store(0, std::memory_order_release);
    std::uint32_t request = request_.load(std::memory_order_acquire);
    if (request & kPause) {
      // The pauser works for microseconds, or is itself preempted: spin a little, then sleep.
      for (int spin = 0; spin < 100 && (request & kPause); ++spin) {
        os::cpu_relax();
        request = request_.load(std::memory_order_acquire);
      }
      if (request & kPause) (void)os::futex_wait(request_, request, -1, process_shared);
      continue;
    }
    busy_.store(1, std::memory_order_relaxed);
    // Without membarrier this fence pairs with the one in fence().
    if (request & kFence) {
      std::atomic_thread_fence(std::memory_order_seq_cst);
    } else {
      std::atomic_signal_fence(std::memory_order_seq_cst);
    }
    if ((request_.load(std::memory_order_acquire) & kPause) == 0) return;
  }
}

void Handshake::fence(bool has_membarrier, bool process_shared) noexcept {
  if (has_membarrier) os::membarrier(process_shared);
  std::atomic_thread_fence(std::memory_order_seq_cst);
}

void Handshake::wait() const noexcept {
  for (int spin = 0; busy_.load(std::memory_order_acquire) != 0; ++spin) {
    if (spin < 200) {
      os::cpu_relax();
    } else if (spin < 400) {
      os::yield();
    } else {
      os::sleep_ns(50'000);  // the owner was preempted inside an operation of some nanoseconds
    }
  }
}

void Handshake::resume(bool process_shared) noexcept {
  request_.fetch_and(~kPause, std::memory_order_release);
  os::futex_wake(request_, 1, process_shared);
}

}  // namespace extmem::shared
