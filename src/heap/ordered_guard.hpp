// OrderedGuard: the directory's and the regions' lock, taken in their order or not at all.
//
// What it is: a lock guard that knows what its thread holds already. Callbacks (listeners, visitors) run with locks
// held; one that calls back for a lock that comes before would, sooner or later, wait for a thread that waits for us.
// Such a call is refused (held() is false, the caller answers EDEADLK), whether or not another thread is there today.
// Thread-safety: the ranks of a slot belong to its thread.
// Invariant: a thread takes a lock of rank r only while it holds none of rank r or higher.
#pragma once

#include "alloc/core.hpp"

namespace extmem::heap {

enum class Rank : std::uint32_t { directory = 1, regions = 2, heap = 4 };

class RankHeld;
/// Those of the calling thread, of all domains, the latest first. For the child of a fork, where slots may be its
/// parent's, who goes on.
extern thread_local constinit const RankHeld* ranks_held;

/// Marks that this thread holds a rank, if the order allows it.
class RankHeld {
 public:
  RankHeld(alloc::Core& core, std::uint32_t slot, Rank rank) noexcept
      : core_(core),
        ranks_(core.slot(slot).ranks),
        bit_(static_cast<std::uint32_t>(rank)),
        allowed_(ranks_ < bit_),
        before_(ranks_held) {
    if (!allowed_) return;
    ranks_ |= bit_;
    ranks_held = this;
  }
  RankHeld(const RankHeld&) = delete;
  ~RankHeld() {
    if (!allowed_) return;
    ranks_held = before_;
    ranks_ &= ~bit_;
  }
  [[nodiscard]] bool allowed() const noexcept { return allowed_; }
  /// Whether the calling thread holds a rank of this domain: it is inside a callback.
  static bool any(const alloc::Core& core) noexcept {
    for (const RankHeld* held = ranks_held; held != nullptr; held = held->before_) {
      if (&held->core_ == &core) return true;
    }
    return false;
  }

 private:
  alloc::Core& core_;
  std::uint64_t& ranks_;
  std::uint64_t bit_;
  bool allowed_;
  const RankHeld* before_;
};

class OrderedGuard {
 public:
  OrderedGuard(alloc::Core& core, std::uint32_t slot, shared::Lock& lock, Rank rank) noexcept
      : lock_(lock), peers_(core.peers()), alone_(core.alone()), rank_(core, slot, rank) {
    if (!rank_.allowed()) return;
    if (alone_) {
      locked_ = shared::Locked::yes;
      return;
    }
    locked_ = lock_.lock(slot, peers_);
    // Stuck: who keeps it may be another one by the time that the message is made.
    if (locked_ == shared::Locked::stuck) holder_ = lock.holder();
  }
  OrderedGuard(const OrderedGuard&) = delete;
  ~OrderedGuard() {
    if (held() && !alone_) lock_.unlock(peers_);
  }
  // An inherited lock needs no repair: all that it guards is journaled, or finished by the dead one's cleaner.
  [[nodiscard]] bool held() const noexcept { return locked_ <= shared::Locked::inherited; }
  /// Why it is not held: `if_mine` where this thread's locks forbid it, else ETIMEDOUT.
  [[nodiscard]] Error refused(Error if_mine) const noexcept {
    return locked_ == shared::Locked::stuck ? shared::stuck_error(peers_, holder_) : if_mine;
  }

 private:
  shared::Lock& lock_;
  shared::Peers peers_;
  bool alone_;
  RankHeld rank_;
  shared::Locked locked_ = shared::Locked::mine;
  std::uint32_t holder_ = 0;
};

}  // namespace extmem::heap
