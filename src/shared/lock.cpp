#include "shared/lock.hpp"

#include <algorithm>
#include <cstring>

#include "base/crash_point.hpp"
#include "os/futex.hpp"
#include "os/thread.hpp"

namespace extmem::shared {

namespace {
// Pauses of the processor, some 10 to 40 ns each. A held section lasts some 100 ns, a revocation some microseconds; to sleep and to
// be woken takes tens of microseconds on both sides.
constexpr int kSpins = 1000;
constexpr int kMostPauses = 256;  // at a time
// How long to sleep before asking whether the holder lives: a holder may have died after it freed the word and before
// it woke us, too.
constexpr std::int64_t kFirstNapNs = 200'000;
constexpr std::int64_t kLongestNapNs = 20'000'000;
}  // namespace

Locked Lock::lock_slow(std::uint32_t slot, const Peers& peers) noexcept {
  // Longer and longer pauses: the holder may do several of its operations meanwhile, with all that the lock guards in its
  // processor's cache, where taking turns would move those lines each time.
  for (int pauses = 1, spins = 0;; pauses = std::min(2 * pauses, kMostPauses)) {
    std::uint32_t seen = word_.load(std::memory_order_relaxed);
    if (seen == 0) {
      if (word_.compare_exchange_weak(seen, slot, std::memory_order_acquire, std::memory_order_relaxed))
        return Locked::yes;
      continue;
    }
    if ((seen & ~kSleepers) == slot) return Locked::mine;
    if (spins >= kSpins) break;
    for (int i = 0; i < pauses; ++i) os::cpu_relax();
    spins += pauses;
  }
  // Of the turn that we wait for: a lock that goes from one holder to the next is not stuck, however long we are unlucky.
  std::uint64_t start = peers.shared ? os::monotonic_ns() : 0;
  std::uint32_t turn = turns_.load(std::memory_order_relaxed);
  std::int64_t nap = kFirstNapNs;
  // From here on we take the lock with the sleepers bit set: we cannot know whether others sleep too.
  for (;;) {
    std::uint32_t seen = word_.load(std::memory_order_relaxed);
    if (seen == 0) {
      if (word_.compare_exchange_weak(seen, slot | kSleepers, std::memory_order_acquire,
                                      std::memory_order_relaxed)) {
        return Locked::yes;
      }
      continue;
    }
    if (peers.all != nullptr && peers.all->slot_dead(seen & ~kSleepers)) {
      if (peers.all->inherit(word_, seen & ~kSleepers, slot)) return Locked::inherited;
      os::yield();
      continue;
    }
    if ((seen & kSleepers) == 0 &&
        !word_.compare_exchange_weak(seen, seen | kSleepers, std::memory_order_relaxed,
                                     std::memory_order_relaxed)) {
      continue;
    }
    const bool timed = peers.all != nullptr;
    (void)os::futex_wait(word_, seen | kSleepers, timed ? nap : -1, peers.shared);
    nap = std::min(nap * 2, kLongestNapNs);
    if (!timed) continue;
    const std::uint64_t now = os::monotonic_ns();
    if (const std::uint32_t turn_now = turns_.load(std::memory_order_relaxed); turn_now != turn) {
      turn = turn_now;
      start = now;
    } else if (now - start > patience_ns.load(std::memory_order_relaxed)) {
      return Locked::stuck;
    }
  }
}

void Lock::wake(const Peers& peers) noexcept { os::futex_wake(word_, 1, peers.shared); }

void Lock::break_dead(std::uint32_t dead_slot, const Peers& peers) noexcept {
  std::uint32_t seen = word_.load(std::memory_order_acquire);
  while ((seen & ~kSleepers) == dead_slot) {
    // Release: what the undoing of the dead one's journal wrote is seen by the next holder.
    if (word_.compare_exchange_weak(seen, 0, std::memory_order_acq_rel)) {
      wake(peers);
      return;
    }
  }
}

Error stuck_error(const Peers& peers, std::uint32_t slot) noexcept {
  // The one message that cannot be a constant: it names a process. One per thread, in its static TLS.
  struct Stuck {
    ErrorInfo info;
    char text[192];
  };
  static thread_local constinit Stuck stuck{{ETIMEDOUT, nullptr}, {}};
  char* to = stuck.text;
  const auto add = [&](const char* text) {
    while (*text != '\0' && to < stuck.text + sizeof stuck.text - 1) *to++ = *text++;
  };
  const auto add_number = [&](std::uint32_t number) {
    char digits[12];
    char* at = digits + sizeof digits;
    *--at = '\0';
    do {
      *--at = static_cast<char>('0' + number % 10);
      number /= 10;
    } while (number != 0);
    add(at);
  };
  add("a lock is kept by a process that does not go on (stopped?): pid ");
  const std::uint32_t participant = peers.all != nullptr ? peers.all->of_slot(slot) : 0;
  if (participant != 0 && participant <= kMaxParticipants) {
    const Participant& record = peers.all->record(participant);
    add_number(record.pid);
    add(" (");
    char name[16];
    std::memcpy(name, record.name, sizeof name);
    name[15] = '\0';
    add(name);
    add(")");
  } else {
    add("unknown");
  }
  add("; continue or kill it, then try again");
  *to = '\0';
  stuck.info.message = stuck.text;
  return Error(&stuck.info);
}

}  // namespace extmem::shared
