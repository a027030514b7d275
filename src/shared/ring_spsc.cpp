// The ring of one producer and one consumer. S1 to S4 are in ring_format.hpp.
#include <algorithm>

#include "base/always_inline.hpp"
#include "base/crash_point.hpp"
#include "base/error.hpp"
#include "shared/ring_format.hpp"

namespace extmem::shared::spsc {
namespace {

using base::crash_point;

// An owner word, S2.
constexpr std::uint64_t kRecovering = std::uint64_t{1} << 31;
constexpr std::uint64_t kEpoch = std::uint64_t{1} << 32;
constexpr std::uint64_t kOwnerBits = kEpoch - 1;

constexpr std::uint64_t owned_by(std::uint32_t participant) noexcept {
  return std::uint64_t{participant} + 1;
}
constexpr std::uint64_t next_owner(std::uint64_t word, std::uint64_t owner) noexcept {
  return ((word & ~kOwnerBits) + kEpoch) | owner;
}

[[gnu::noinline]] bool claim_free(std::atomic<std::uint64_t>& place, std::uint32_t participant) noexcept {
  std::uint64_t seen = place.load(std::memory_order_relaxed);
  while ((seen & kOwnerBits) == 0) {
    crash_point("ring.spsc.claim");
    // Acquire: pairs with the release in give_up and end_recovery; we go on from what the last owner wrote.
    if (place.compare_exchange_weak(seen, next_owner(seen, owned_by(participant)), std::memory_order_acquire,
                                    std::memory_order_relaxed)) {
      return true;
    }
  }
  return (seen & kOwnerBits) == owned_by(participant);
}
/// Whether this participant has the place now, claiming it where nobody has it.
EXTMEM_ALWAYS_INLINE bool claim(std::atomic<std::uint64_t>& place, std::uint32_t participant) noexcept {
  if ((place.load(std::memory_order_relaxed) & kOwnerBits) == owned_by(participant)) [[likely]]
    return true;
  return claim_free(place, participant);
}

void give_up(std::atomic<std::uint64_t>& place, std::uint32_t participant) noexcept {
  std::uint64_t seen = place.load(std::memory_order_relaxed);
  if ((seen & kOwnerBits) != owned_by(participant)) return;
  // Release: pairs with the acquire in claim.
  place.compare_exchange_strong(seen, next_owner(seen, 0), std::memory_order_release,
                                std::memory_order_relaxed);
}

/// Orders the change of the ring before the look at the event word (W1).
EXTMEM_ALWAYS_INLINE void notify_after_store(RingView ring, std::atomic<std::uint32_t>& event) noexcept {
  if (ring.fences) [[unlikely]] {
    std::atomic_thread_fence(std::memory_order_seq_cst);
  } else {
    std::atomic_signal_fence(
        std::memory_order_seq_cst);  // the waiter's membarrier makes a real fence of this
  }
  notify(event);
}

Error broken() noexcept {
  return EXTMEM_ERROR(
      EBADMSG,
      "the ring's memory is damaged: its indices contradict each other; something else wrote there. "
      "Stop using it and create() it anew");
}
Error not_producer() noexcept {
  return EXTMEM_ERROR(
      EBUSY,
      "another participant is the producer of this ring; it gives that up with detach(), or recover() "
      "frees its place once it is dead. For several producers use an mpmc ring");
}
Error not_consumer() noexcept {
  return EXTMEM_ERROR(
      EBUSY,
      "another participant is the consumer of this ring; it gives that up with detach(), or recover() "
      "frees its place once it is dead. For several consumers use an mpmc ring");
}

/// What the consumer can take: [claimed, claimed + count), count at most `want`.
struct Available {
  std::uint64_t claimed;
  std::uint64_t count;
};
EXTMEM_ALWAYS_INLINE Result<Available> available(RingView ring, std::uint64_t want) noexcept {
  RingHeader& header = ring.header();
  const std::uint64_t claimed = header.claimed.load(std::memory_order_relaxed);
  std::uint64_t tail = header.seen_tail.load(std::memory_order_relaxed);
  if (tail - claimed < want || tail - claimed > ring.capacity()) {
    // Acquire: pairs with the release in push; who sees the tail sees the slots before it.
    tail = header.tail.load(std::memory_order_acquire);
    if (tail - claimed > ring.capacity()) return broken();
    header.seen_tail.store(tail, std::memory_order_relaxed);
    if (tail == claimed) {
      return EXTMEM_ERROR(EAGAIN,
                          "the ring is empty; try again later, or wait with pop_wait() or take_wait()");
    }
  }
  return Available{claimed, std::min(want, tail - claimed)};
}

/// Takes the place of a dead owner for the time of recovery. Returns: its word to end that with, or 0.
std::uint64_t take_over(std::atomic<std::uint64_t>& place, std::uint32_t participant, const RingWatch& watch,
                        std::uint32_t& dead) noexcept {
  // Acquire: pairs with the release of the last owner, a dead recoverer among them.
  std::uint64_t seen = place.load(std::memory_order_acquire);
  const std::uint64_t owner = seen & kOwnerBits & ~kRecovering;
  if (owner == 0 || owner > kMaxRingParticipant + 1) return 0;
  dead = static_cast<std::uint32_t>(owner - 1);
  if (!watch.is_dead(dead)) return 0;
  const std::uint64_t mine = next_owner(seen, owned_by(participant) | kRecovering);
  // Of several that recover, one wins; a new owner under the dead one's number has another epoch.
  return place.compare_exchange_strong(seen, mine, std::memory_order_acq_rel, std::memory_order_relaxed)
             ? mine
             : 0;
}

/// Ends what take_over began. Returns: false where the recoverer itself was declared dead meanwhile.
bool end_recovery(std::atomic<std::uint64_t>& place, std::uint64_t mine) noexcept {
  const std::uint64_t nobody = next_owner(mine, 0);
  // Release: pairs with the acquire in claim.
  return place.compare_exchange_strong(mine, nobody, std::memory_order_release, std::memory_order_relaxed);
}

EXTMEM_ALWAYS_INLINE Result<std::size_t> push_some(RingView ring, const RegionPtr* ptrs,
                                                   std::size_t count) noexcept {
  RingHeader& header = ring.header();
  if (!claim(header.producer, ring.participant)) [[unlikely]]
    return not_producer();
  const std::uint64_t tail = header.tail.load(std::memory_order_relaxed);
  std::uint64_t used = tail - header.seen_head.load(std::memory_order_relaxed);
  if (used > ring.capacity() || ring.capacity() - used < count) {
    // Acquire: pairs with the release in settle and pop; the slots before head were read.
    const std::uint64_t head = header.head.load(std::memory_order_acquire);
    used = tail - head;
    if (used > ring.capacity()) return broken();
    header.seen_head.store(head, std::memory_order_relaxed);
    if (used == ring.capacity()) {
      return EXTMEM_ERROR(EAGAIN, "the ring is full; try again later, or wait with push_wait()");
    }
  }
  const std::size_t fitting = std::min<std::size_t>(count, ring.capacity() - used);
  for (std::size_t i = 0; i < fitting; ++i) {
    ring.word(tail + i).store(ptrs[i].bits, std::memory_order_relaxed);  // published by tail
  }
  crash_point("ring.spsc.push.written");
  // Release: pairs with the acquire in available(). The one store that makes the push.
  header.tail.store(tail + fitting, std::memory_order_release);
  crash_point("ring.spsc.push.done");
  notify_after_store(ring, header.elements);
  return fitting;
}

EXTMEM_ALWAYS_INLINE Result<std::size_t> pop_some(RingView ring, RegionPtr* out, std::size_t count) noexcept {
  RingHeader& header = ring.header();
  if (!claim(header.consumer, ring.participant)) [[unlikely]]
    return not_consumer();
  const auto found = available(ring, count);
  if (!found) return found.error();
  if (found->claimed != header.head.load(std::memory_order_relaxed)) {
    return EXTMEM_ERROR(EBUSY, "elements are taken and not settled; settle() them, in order, before pop()");
  }
  const std::uint64_t end = found->claimed + found->count;
  header.claimed.store(end, std::memory_order_relaxed);
  // Release: what dies from here on is reported before it could be seen in `out` only (S3).
  std::atomic_thread_fence(std::memory_order_release);
  crash_point("ring.spsc.pop.claimed");
  for (std::uint64_t i = 0; i < found->count; ++i) {
    out[i].bits = ring.word(found->claimed + i).load(std::memory_order_relaxed);  // acquired with tail
  }
  crash_point("ring.spsc.pop.written");
  // Release: pairs with the acquire in push; the slots are read, `out` is written.
  header.head.store(end, std::memory_order_release);
  crash_point("ring.spsc.pop.settled");
  notify_after_store(ring, header.room);
  return static_cast<std::size_t>(found->count);
}

}  // namespace

// With a count of 1 the compiler knows, loops and minima vanish.
Result<void> push_one(RingView ring, RegionPtr ptr) noexcept {
  const auto pushed = push_some(ring, &ptr, 1);
  return pushed ? Result<void>{} : pushed.error();
}
Result<RegionPtr> pop_one(RingView ring) noexcept {
  RegionPtr ptr;
  const auto popped = pop_some(ring, &ptr, 1);
  return popped ? Result<RegionPtr>{ptr} : popped.error();
}
Result<std::size_t> push(RingView ring, const RegionPtr* ptrs, std::size_t count) noexcept {
  return push_some(ring, ptrs, count);
}
Result<std::size_t> pop(RingView ring, RegionPtr* out, std::size_t count) noexcept {
  return pop_some(ring, out, count);
}

Result<RingTaken> take(RingView ring) noexcept {
  RingHeader& header = ring.header();
  if (!claim(header.consumer, ring.participant)) [[unlikely]]
    return not_consumer();
  const auto found = available(ring, 1);
  if (!found) return found.error();
  const RingTaken taken{.ptr = RegionPtr{ring.word(found->claimed).load(std::memory_order_relaxed)},
                        .ticket = found->claimed};
  crash_point("ring.spsc.take.before");
  // Release: the caller's use of the element comes after the claim, in the eyes of who recovers (S3).
  header.claimed.store(found->claimed + 1, std::memory_order_relaxed);
  std::atomic_thread_fence(std::memory_order_release);
  crash_point("ring.spsc.take.done");
  return taken;
}

Result<void> settle(RingView ring, const RingTaken& taken) noexcept {
  RingHeader& header = ring.header();
  if ((header.consumer.load(std::memory_order_relaxed) & kOwnerBits) != owned_by(ring.participant)) {
    return EXTMEM_ERROR(ESTALE,
                        "this participant is not the ring's consumer: it has taken nothing, or another one "
                        "declared it dead and "
                        "took its elements");
  }
  const std::uint64_t head = header.head.load(std::memory_order_relaxed);
  if (taken.ticket != head || head == header.claimed.load(std::memory_order_relaxed)) {
    return EXTMEM_ERROR(
        EINVAL, "the element is not the oldest taken one; settle what take() gave, once and in order");
  }
  // Release: pairs with the acquire in push.
  header.head.store(head + 1, std::memory_order_release);
  crash_point("ring.spsc.settled");
  notify_after_store(ring, header.room);
  return {};
}

Result<RingRecovery> recover(RingView ring, const RingWatch& watch) noexcept {
  RingHeader& header = ring.header();
  RingRecovery recovery;
  std::uint32_t dead = 0;
  if (const std::uint64_t mine = take_over(header.producer, ring.participant, watch, dead); mine != 0) {
    // Nothing to complete: tail says what was pushed.
    crash_point("ring.spsc.recover.producer");
    if (end_recovery(header.producer, mine)) ++recovery.roles;
  }
  if (const std::uint64_t mine = take_over(header.consumer, ring.participant, watch, dead); mine != 0) {
    crash_point("ring.spsc.recover.consumer");
    const std::uint64_t claimed = header.claimed.load(std::memory_order_relaxed);
    const std::uint64_t tail = header.tail.load(std::memory_order_acquire);
    std::uint64_t head = header.head.load(std::memory_order_relaxed);
    const bool sane = claimed - head <= ring.capacity() && tail - claimed <= ring.capacity();
    while (sane && head != claimed) {
      watch.on_orphan(RingOrphan{.ptr = RegionPtr{ring.word(head).load(std::memory_order_relaxed)},
                                 .ticket = head,
                                 .participant = dead});
      crash_point("ring.spsc.recover.reported");
      // Release: pairs with the acquire in push.
      header.head.store(++head, std::memory_order_release);
      ++recovery.orphans;
      crash_point("ring.spsc.recover.freed");
    }
    if (end_recovery(header.consumer, mine)) ++recovery.roles;
    if (!sane) return broken();
    if (recovery.orphans > 0) notify_after_store(ring, header.room);
  }
  return recovery;
}

Result<void> detach(RingView ring) noexcept {
  RingHeader& header = ring.header();
  if ((header.consumer.load(std::memory_order_relaxed) & kOwnerBits) == owned_by(ring.participant) &&
      header.claimed.load(std::memory_order_relaxed) != header.head.load(std::memory_order_relaxed)) {
    return EXTMEM_ERROR(EBUSY, "elements are taken and not settled; settle() them before detach()");
  }
  give_up(header.producer, ring.participant);
  give_up(header.consumer, ring.participant);
  return {};
}

Result<void> walk(RingView ring, RingWalker visit) noexcept {
  RingHeader& header = ring.header();
  const std::uint64_t head = header.head.load(std::memory_order_acquire);
  const std::uint64_t claimed = header.claimed.load(std::memory_order_relaxed);
  const std::uint64_t tail = header.tail.load(std::memory_order_acquire);
  // All three move on meanwhile, tail at most a lap beyond the newest head.
  if (tail - head > ring.capacity() && header.head.load(std::memory_order_acquire) == head) return broken();
  const std::uint64_t consumer = header.consumer.load(std::memory_order_relaxed) & kOwnerBits & ~kRecovering;
  for (std::uint64_t ticket = head; ticket != tail && ticket - head < ring.capacity(); ++ticket) {
    const bool taken = static_cast<std::int64_t>(claimed - ticket) > 0;
    const RingEntry entry{
        .ptr = RegionPtr{ring.word(ticket).load(std::memory_order_relaxed)},
        .ticket = ticket,
        .participant = taken && consumer != 0 ? static_cast<std::uint32_t>(consumer - 1) : 0,
        .taken = taken};
    if (!visit(entry)) break;
  }
  return {};
}

Result<void> check(RingView ring) noexcept {
  RingHeader& header = ring.header();
  const std::uint64_t head = header.head.load(std::memory_order_acquire);
  const std::uint64_t claimed = header.claimed.load(std::memory_order_relaxed);
  const std::uint64_t tail = header.tail.load(std::memory_order_acquire);
  if (tail - head > ring.capacity() || claimed - head > tail - head) return broken();
  if (header.seen_head.load(std::memory_order_relaxed) > head ||
      header.seen_tail.load(std::memory_order_relaxed) > tail) {
    return EXTMEM_ERROR(EBADMSG,
                        "the ring is damaged: one side has seen an index that the other has not reached");
  }
  for (std::uint64_t ticket = head; ticket != tail; ++ticket) {
    if (ring.word(ticket).load(std::memory_order_relaxed) == 0) {
      return EXTMEM_ERROR(EBADMSG, "the ring is damaged: an element is null");
    }
  }
  return {};
}

}  // namespace extmem::shared::spsc
