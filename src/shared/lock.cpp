#include "shared/lock.hpp"

#include "os/futex.hpp"
#include "os/thread.hpp"

namespace extmem::shared {

namespace {
constexpr int kSpins = 60;  // a held section lasts some 100 ns; a futex round trip several microseconds
}

bool Lock::lock_slow(std::uint32_t slot, bool process_shared) noexcept {
  for (int spin = 0;; ++spin) {
    std::uint32_t seen = word_.load(std::memory_order_relaxed);
    if (seen == 0) {
      if (word_.compare_exchange_weak(seen, slot, std::memory_order_acquire, std::memory_order_relaxed)) return true;
      continue;
    }
    if ((seen & ~kSleepers) == slot) return false;
    if (spin < kSpins) {
      os::cpu_relax();
      continue;
    }
    break;
  }
  // From here on we take the lock with the sleepers bit set: we cannot know whether others sleep too.
  for (;;) {
    std::uint32_t seen = word_.load(std::memory_order_relaxed);
    if (seen == 0) {
      if (word_.compare_exchange_weak(seen, slot | kSleepers, std::memory_order_acquire, std::memory_order_relaxed)) {
        return true;
      }
      continue;
    }
    if ((seen & kSleepers) == 0 &&
        !word_.compare_exchange_weak(seen, seen | kSleepers, std::memory_order_relaxed, std::memory_order_relaxed)) {
      continue;
    }
    (void)os::futex_wait(word_, seen | kSleepers, -1, process_shared);
  }
}

void Lock::wake(bool process_shared) noexcept { os::futex_wake(word_, 1, process_shared); }

}  // namespace extmem::shared
