// Waiting for room or elements. "Waiting" and W1 are in ring_format.hpp.
#include <chrono>
#include <limits>

#include "base/crash_point.hpp"
#include "base/error.hpp"
#include "os/futex.hpp"
#include "os/membarrier.hpp"
#include "os/thread.hpp"
#include "shared/ring_format.hpp"

namespace extmem {
namespace shared {

void wake_ring_waiters(std::atomic<std::uint32_t>& event) noexcept {
  std::uint32_t seen = event.load(std::memory_order_relaxed);
  while ((seen & 1) != 0) {
    base::crash_point("ring.wake.before");
    // + 1 clears the bit and changes the rest, so that who is about to sleep does not.
    if (event.compare_exchange_weak(seen, seen + 1, std::memory_order_relaxed, std::memory_order_relaxed)) {
      base::crash_point("ring.wake.cleared");
      os::futex_wake(event, std::numeric_limits<int>::max(), true);
      return;
    }
  }
}

namespace {

constexpr int kSpins = 100;  // some microseconds: what another processor needs for a few operations

/// Says that somebody is about to sleep. Returns: the value to sleep on.
std::uint32_t announce(std::atomic<std::uint32_t>& event, bool spsc, bool fences) noexcept {
  // Sequentially consistent: pairs with the look in notify() (W1).
  const std::uint32_t seen = event.fetch_or(1, std::memory_order_seq_cst) | 1;
  base::crash_point("ring.wait.announced");
  if (spsc && !fences) os::membarrier(true);  // the other side only ordered for the compiler
  return seen;
}

struct Waiter {
  const Ring& ring;
  std::atomic<std::uint32_t>& event;
  std::chrono::nanoseconds timeout;
  const RingWatch& watch;
  bool fences;

  /// Calls attempt() until it gives something else than EAGAIN, or the time is over.
  template <typename Attempt>
  auto run(Attempt attempt) const noexcept -> decltype(attempt()) {
    using Outcome = decltype(attempt());
    if (timeout.count() < 0) {
      return EXTMEM_ERROR(EINVAL,
                          "the time-out is negative; pass 0 for one look, nanoseconds::max() for no end");
    }
    if (static_cast<bool>(watch.is_dead) != static_cast<bool>(watch.on_orphan)) {
      return EXTMEM_ERROR(EINVAL, "a watch needs both functions: who is dead, and where its elements go");
    }
    const auto look = [&]() noexcept {
      Outcome outcome = attempt();
      // The place in an spsc ring may be a dead participant's; a living one's is not waited for.
      if (outcome.error().code() == EBUSY && watch.is_dead && ring.recover(watch)) outcome = attempt();
      return outcome;
    };
    for (int spin = 0; spin < kSpins; ++spin) {
      const Outcome outcome = look();
      if (outcome.error().code() != EAGAIN) return outcome;
      if (timeout.count() == 0) break;
      os::cpu_relax();
    }
    const std::uint64_t start = os::monotonic_ns();
    const auto limit = static_cast<std::uint64_t>(timeout.count());
    // A process that cannot fence the others looks more often: it may miss a wake of the spsc kind (W1).
    const std::int64_t recheck = fences ? kRecheckNs / 10 : kRecheckNs;
    for (;;) {
      const std::uint32_t seen = announce(event, ring.kind() == RingKind::spsc, fences);
      const Outcome outcome = look();
      if (outcome.error().code() != EAGAIN) return outcome;
      const std::uint64_t waited = os::monotonic_ns() - start;
      const std::uint64_t left = waited < limit ? limit - waited : 0;
      const std::int64_t sleep =
          left < static_cast<std::uint64_t>(recheck) ? static_cast<std::int64_t>(left) : recheck;
      if (left == 0 || os::futex_wait(event, seen, sleep, true) == ETIMEDOUT) {
        if (watch.is_dead) {
          if (const auto recovered = ring.recover(watch); !recovered) return recovered.error();
          const Outcome after = look();
          if (after.error().code() != EAGAIN) return after;
        }
        if (left == 0) {
          return EXTMEM_ERROR(ETIMEDOUT, "the time is over: the ring stayed full, or empty, all the while");
        }
      }
    }
  }
};

}  // namespace
}  // namespace shared

namespace {
Error no_ring() noexcept {
  return EXTMEM_ERROR(EINVAL, "the ring's handle is empty; pass what attach() gave");
}
shared::RingHeader& header_of(std::byte* memory) noexcept {
  return *reinterpret_cast<shared::RingHeader*>(memory);
}
}  // namespace

Result<void> Ring::push_wait(RegionPtr ptr, std::chrono::nanoseconds timeout,
                             const RingWatch& watch) const noexcept {
  if (memory_ == nullptr) return no_ring();
  const shared::Waiter waiter{*this, header_of(memory_).room, timeout, watch, fences_ != 0};
  return waiter.run([&]() noexcept { return try_push(ptr); });
}

Result<RegionPtr> Ring::pop_wait(std::chrono::nanoseconds timeout, const RingWatch& watch) const noexcept {
  if (memory_ == nullptr) return no_ring();
  const shared::Waiter waiter{*this, header_of(memory_).elements, timeout, watch, fences_ != 0};
  return waiter.run([&]() noexcept { return try_pop(); });
}

Result<RingTaken> Ring::take_wait(std::chrono::nanoseconds timeout, const RingWatch& watch) const noexcept {
  if (memory_ == nullptr) return no_ring();
  const shared::Waiter waiter{*this, header_of(memory_).elements, timeout, watch, fences_ != 0};
  return waiter.run([&]() noexcept { return take(); });
}

}  // namespace extmem
