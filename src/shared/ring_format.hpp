// The bytes of a ring, and the rules by which they change. The public face is extmem/ring.hpp.
//
//   0        8     12     16         24      32      40          64          128            192          256
//   +--------+-----+------+----------+-------+-------+-----------+-----------+--------------+------------+
//   | magic  | ver | kind | capacity | bytes | check | 0         | producers | consumers    | events     |
//   +--------+-----+------+----------+-------+-------+-----------+-----------+--------------+------------+
//   each of the last three on a cache line of its own:
//     producers   tail 8 | owner 8 (spsc) | seen head 8 (spsc)
//     consumers   head 8 | owner 8 (spsc) | seen tail 8 (spsc) | claimed 8 (spsc)
//     events      elements 4 | room 4
//   256: the slots.  mpmc: 16 bytes each, {meta, value}.  spsc: 8 bytes each, the value.
//
// Elements are numbered by *tickets* from 0. Ticket t uses slot t mod capacity, in lap t / capacity.
//
// MPMC. A slot's meta is one word:   63            16 15       2 1     0
//                                    +---------------+----------+-------+
//                                    | lap (48 bits) | owner 14 | state |     owner: pusher (full), taker (taken)
//                                    +---------------+----------+-------+
//
//            push: one 16-byte CAS of {meta, value}           take: CAS of meta, owner := me
//   {lap, free} ----------------------------> {lap, full, pusher} ----------> {lap, taken, me} --.
//       ^                                                                      |   ^             |
//       |                                            recover: CAS, owner := me |   |             |
//       |                    (where the owner is dead; then report the element)'---'             |
//       '------------ {lap + 1, free} <----------------- settle (or recover's end): CAS ---------'
//
//   head and tail are hints that lag. Whoever finds that the slot of ticket `tail` was pushed moves tail on, whoever
//   finds that the one of `head` was taken moves head on; so a participant that dies in between is not missed.
//
//   M1. A slot's (lap, state) only ever grows; every change is one CAS that names the whole meta it replaces.
//   M2. tail <= T, the first ticket never pushed; head <= H, the first never taken; H <= T. Pushes happen at T only:
//       ticket t is tried only after a look at tail >= t or the own push of t - 1, and only in a slot {lap(t), free}.
//   M3. value changes only together with meta, from free to full: a reader that then wins a CAS on meta has the value.
//   M4. Only {taken, p} depends on anybody (p), and says so. It delays pushes of the next lap, and nothing else.
//   M5. An element was pushed when its CAS was done, delivered when settle's CAS was, reported when recover's was.
//
// SPSC. One slot is one word, the indices are exact, and each is written by its owner only:
//
//        head           claimed             tail            head + capacity
//   ------+----------------+------------------+------------------+------
//    free | taken          | full             | free             |
//   push:   owner, slots, tail           take: claimed       settle: head          pop: claimed, out, head
//
//   S1. head <= claimed <= tail <= head + capacity. Each of them only grows.
//   S2. owner is {epoch 32, recovering 1, participant + 1, 31}, the low half 0 for nobody. Every change is a CAS that
//       raises the epoch. Only the participant named by `owners`, not recovering, writes that side's words.
//   S3. What was taken and not settled is [head, claimed); if the consumer is dead, that is what recover reports.
//   S4. seen head <= head, and seen tail <= tail: copies that spare a look at the other side's cache line.
//
// Waiting. An event word has bit 0 set where somebody may sleep on it. Waiter: set the bit, look at the ring once more,
// sleep while the word is the same. Waker: change the ring, then look at the bit; if set, add 1 (which clears it) and
// wake all. A waker that dies in between leaves a sleeper to its time-out (kRecheckNs), a waiter that dies leaves a bit
// that costs one needless wake: there is no count that could stay wrong.
//   W1. Change-then-look and set-then-look must not pass each other. mpmc: each change is a locked instruction, a full
//       fence. spsc: the changer orders for the compiler only; the waiter's membarrier makes it a fence. Where a
//       process cannot register for that, it fences by itself (RingView::fences).
//
// Orders. A process that dies has its stores seen in program order (x86-64), so S1 and S3 hold for those who recover;
// the stores whose order matters for that are release stores or separated by a release fence.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "extmem/ring.hpp"
#include "shared/wide_cas.hpp"

namespace extmem::shared {

inline constexpr std::uint64_t kRingMagic = 0x676e69726d747865;  // "extmring" read as little-endian bytes
inline constexpr std::uint32_t kRingVersion = 1;
inline constexpr std::int64_t kRecheckNs = 10'000'000;

struct RingHeader {
  // Written once, by create(); magic last.
  std::atomic<std::uint64_t> magic;  // release in create(), pairs with the acquire in attach()
  std::uint32_t version;
  std::uint32_t kind;
  std::uint64_t capacity;
  std::uint64_t bytes;
  std::uint64_t check;  // of the four fields above
  std::uint64_t reserved[3];

  // Producers.
  // tail: spsc: release in push pairs with acquire in available(); mpmc: a hint (M2), see raise().
  alignas(64) std::atomic<std::uint64_t> tail;
  std::atomic<std::uint64_t> producer;   // spsc, S2: acquire when claimed, pairs with release when given up
  std::atomic<std::uint64_t> seen_head;  // spsc, S4: relaxed, the producer's own
  std::uint64_t reserved_for_producers[5];

  // Consumers.
  // head: spsc: release in settle and pop pairs with acquire in push; mpmc: a hint (M2), see raise().
  alignas(64) std::atomic<std::uint64_t> head;
  std::atomic<std::uint64_t> consumer;   // spsc, S2: as producer
  std::atomic<std::uint64_t> seen_tail;  // spsc, S4: relaxed, the consumer's own
  std::atomic<std::uint64_t> claimed;    // spsc, S3: relaxed, the consumer's own; order: see `Orders` above
  std::uint64_t reserved_for_consumers[4];

  // Everybody. Read at each operation, written only around waits.
  alignas(64) std::atomic<std::uint32_t> elements;  // consumers sleep here
  std::atomic<std::uint32_t> room;                  // producers sleep here
  std::uint32_t reserved_for_events[14];
};
inline constexpr std::size_t kRingSlots = 256;  // where the slots begin
static_assert(sizeof(RingHeader) == kRingSlots && offsetof(RingHeader, tail) == 64 &&
              offsetof(RingHeader, head) == 128 && offsetof(RingHeader, elements) == 192);

/// A ring as an operation sees it: where it lies, and what the handle vouches for. Travels in two registers.
struct RingView {
  std::byte* memory;
  std::uint32_t participant;
  std::uint8_t shift;  // log2 of the capacity
  bool fences;

  [[nodiscard]] RingHeader& header() const noexcept { return *reinterpret_cast<RingHeader*>(memory); }
  [[nodiscard]] std::uint64_t capacity() const noexcept { return std::uint64_t{1} << shift; }
  [[nodiscard]] std::uint64_t index(std::uint64_t ticket) const noexcept { return ticket & (capacity() - 1); }
  [[nodiscard]] WordPair& pair(std::uint64_t ticket) const noexcept {
    return reinterpret_cast<WordPair*>(memory + kRingSlots)[index(ticket)];
  }
  [[nodiscard]] std::atomic<std::uint64_t>& word(std::uint64_t ticket) const noexcept {
    return reinterpret_cast<std::atomic<std::uint64_t>*>(memory + kRingSlots)[index(ticket)];
  }
};

static_assert(sizeof(RingView) == 16);

using RingWalker = FunctionRef<bool(const RingEntry&)>;

// Each as the method of Ring that it is named after; spans are not empty, functions not missing.
namespace mpmc {
void format(RingView ring) noexcept;
Result<void> push_one(RingView ring, RegionPtr ptr) noexcept;
Result<RegionPtr> pop_one(RingView ring) noexcept;
Result<std::size_t> push(RingView ring, const RegionPtr* ptrs, std::size_t count) noexcept;
Result<std::size_t> pop(RingView ring, RegionPtr* out, std::size_t count) noexcept;
Result<RingTaken> take(RingView ring) noexcept;
Result<void> settle(RingView ring, const RingTaken& taken) noexcept;
Result<RingRecovery> recover(RingView ring, const RingWatch& watch) noexcept;
Result<void> walk(RingView ring, RingWalker visit) noexcept;
Result<void> check(RingView ring) noexcept;
}  // namespace mpmc

namespace spsc {
Result<void> push_one(RingView ring, RegionPtr ptr) noexcept;
Result<RegionPtr> pop_one(RingView ring) noexcept;
Result<std::size_t> push(RingView ring, const RegionPtr* ptrs, std::size_t count) noexcept;
Result<std::size_t> pop(RingView ring, RegionPtr* out, std::size_t count) noexcept;
Result<RingTaken> take(RingView ring) noexcept;
Result<void> settle(RingView ring, const RingTaken& taken) noexcept;
Result<RingRecovery> recover(RingView ring, const RingWatch& watch) noexcept;
Result<void> detach(RingView ring) noexcept;
Result<void> walk(RingView ring, RingWalker visit) noexcept;
Result<void> check(RingView ring) noexcept;
}  // namespace spsc

/// Wakes those who sleep on `event`, after the ring was changed (W1).
void wake_ring_waiters(std::atomic<std::uint32_t>& event) noexcept;
inline void notify(std::atomic<std::uint32_t>& event) noexcept {
  // Sequentially consistent: pairs with the setting of the bit in announce() (W1).
  if ((event.load(std::memory_order_seq_cst) & 1) != 0) [[unlikely]]
    wake_ring_waiters(event);
}

}  // namespace extmem::shared
