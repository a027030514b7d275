// Ring: passing RegionPtrs between threads and processes, without locks.
//
// What it is: a bounded queue of RegionPtrs in plain shared memory, a memzone say. It holds no pointers, so every
// process maps it where it likes. Two kinds: `spsc` has one producer and one consumer at a time and is the fast one;
// `mpmc` has any number of both. docs/rings.md has the guarantees, the pictures and the figures.
// Thread-safety: a Ring is a small value. Any thread may call anything on an mpmc ring. On an spsc ring one thread at
// a time pushes and one at a time takes, pops and settles; everything else is for any thread.
//
// Invariants:
//  1. Each element that was pushed is delivered, still in the ring, or reported as an orphan; exactly one of these,
//     also when any participants were killed between any two instructions.
//  2. A push is one store that is visible or not. A producer that died never holds anybody up, and leaves no orphan.
//  3. From take() to settle() an element is *taken*: it stays in its slot, with its taker's number beside it. If the
//     taker dies there, recover() reports it as an orphan; nobody else gets it before that.
//  4. Nothing that lies in the ring's memory is trusted: hostile content gives EBADMSG, never a wild access.
//  5. No call holds a lock, and a participant that is stopped delays others only as a full or empty ring does.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <span>

#include "extmem/export.h"
#include "extmem/function_ref.hpp"
#include "extmem/result.hpp"
#include "extmem/types.hpp"

namespace extmem {

enum class RingKind : std::uint32_t {
  spsc = 1,  ///< one producer, one consumer
  mpmc = 2,  ///< many producers, many consumers
};

inline constexpr std::size_t kMinRingCapacity = 2;
inline constexpr std::size_t kMaxRingCapacity = std::size_t{1} << 30;
inline constexpr std::size_t kRingAlign = 64;                ///< of the memory that a ring lies in
inline constexpr std::uint32_t kMaxRingParticipant = 16383;  ///< participants are numbered 0..16383

/// An element that was taken and not settled yet.
struct RingTaken {
  RegionPtr ptr{};
  std::uint64_t ticket = 0;  ///< which one it is: elements are numbered from 0 in the order of their pushes
};

/// An element whose taker died before settling it.
struct RingOrphan {
  RegionPtr ptr{};
  std::uint64_t ticket = 0;
  std::uint32_t participant = 0;  ///< who had taken it, or died while reporting it
};

/// Who tells which participants are dead, and who hears of what they had taken.
struct RingWatch {
  /// True when every thread of the participant is gone for good. In doubt false: a participant that is declared dead
  /// while it lives gets ESTALE, and on an spsc ring may pass an element on twice.
  FunctionRef<bool(std::uint32_t participant)> is_dead{};
  /// Called while the element still is in its slot, so a recoverer that is killed inside leaves it to the next one,
  /// which reports it again, with the killed recoverer as the participant. May push to the ring, must not recover it.
  FunctionRef<void(const RingOrphan& orphan)> on_orphan{};
};

/// What recover() did.
struct RingRecovery {
  std::uint64_t orphans = 0;  ///< elements reported
  std::uint64_t roles = 0;    ///< spsc: places of a dead producer or consumer that are free again
};

/// What Ring::walk meets.
struct RingEntry {
  RegionPtr ptr{};
  std::uint64_t ticket = 0;
  std::uint32_t participant = 0;  ///< taken: by whom; else mpmc: pushed by whom, spsc: 0
  bool taken = false;
};

class EXTMEM_API Ring {
 public:
  /// An empty handle; calls on it answer EINVAL.
  constexpr Ring() noexcept = default;

  // ---- making and finding -----------------------------------------------------------------------------------

  /// How many bytes a ring needs.
  /// Errors: EINVAL kind, or capacity is no power of two in [kMinRingCapacity, kMaxRingCapacity].
  static Result<std::size_t> bytes_for(RingKind kind, std::size_t capacity) noexcept;

  /// Formats an empty ring into memory that nobody uses as a ring now. A creator that is killed here leaves no ring.
  /// Requires: `memory` is a multiple of kRingAlign, and bytes >= bytes_for(kind, capacity).
  /// Errors: EINVAL as above; ENOSPC too few bytes.
  static Result<void> create(void* memory, std::size_t bytes, RingKind kind, std::size_t capacity) noexcept;

  /// The ring that create() made in these bytes, mapped anywhere in any process. Registers this process for
  /// membarrier, so that others can wait for what it does.
  /// Requires: a participant's number is its own while it lives. Who gets the number of a dead one first calls
  /// recover() with a predicate that says "dead" of it, on every ring that the dead one used.
  /// Errors: EINVAL memory, alignment or participant; ENODATA no ring there (or create() is not done); EPROTO another
  /// version's ring; EBADMSG the header contradicts itself; EMSGSIZE the ring is longer than `bytes`.
  static Result<Ring> attach(void* memory, std::size_t bytes, std::uint32_t participant) noexcept;

  /// Gives up this participant's places as producer and consumer of an spsc ring; does nothing on an mpmc ring.
  /// The handle stays usable: the next push or take claims a place again.
  /// Errors: EBUSY the consumer has taken elements that are not settled.
  Result<void> detach() const noexcept;

  // ---- passing elements -------------------------------------------------------------------------------------

  /// Puts one element into the ring.
  /// Errors: EAGAIN the ring is full; EINVAL null; EBUSY (spsc) another participant is the producer; EBADMSG.
  Result<void> try_push(RegionPtr ptr) const noexcept;
  /// Puts as many of `ptrs` into the ring as have room, in order. Returns: how many; not 0.
  /// Errors: as try_push; EAGAIN where not even one has room.
  Result<std::size_t> push(std::span<const RegionPtr> ptrs) const noexcept;

  /// Takes and settles the oldest element. A process that is killed after the element was settled and before it used
  /// the returned value loses it: use pop() into shared memory, or take(), where that matters.
  /// Errors: EAGAIN the ring is empty; EBUSY (spsc) another participant is the consumer, or this one has taken
  /// elements that are not settled; ESTALE this participant was declared dead; EBADMSG.
  Result<RegionPtr> try_pop() const noexcept;
  /// Takes and settles up to out.size() elements, in order. Returns: how many; not 0.
  /// Each is written to `out` before it is settled. So where `out` is shared memory that outlives the process, an
  /// element is in the ring, reported as an orphan, or in `out`; and what is reported counts, not what is in `out`.
  /// Errors: as try_pop; where some were popped already, the call succeeds and the next one tells.
  Result<std::size_t> pop(std::span<RegionPtr> out) const noexcept;

  /// Takes the oldest element and leaves it in its slot until settle(), so that its death in between is noticed.
  /// An mpmc ring can be full meanwhile although it holds less than its capacity.
  /// Errors: as try_pop.
  Result<RingTaken> take() const noexcept;
  /// Ends what take() began: the element is the caller's, and its slot free.
  /// Requires (spsc): elements are settled in the order in which they were taken.
  /// Errors: EINVAL it is not taken, or out of order; ESTALE this participant was declared dead, and the element
  /// reported as an orphan.
  Result<void> settle(const RingTaken& taken) const noexcept;

  // ---- waiting ----------------------------------------------------------------------------------------------

  /// As try_push, try_pop and take, but wait up to `timeout` for room or for an element (nanoseconds::max(): without
  /// end). They look again every 10 ms at the latest, so a wake that died with its sender costs no more than that;
  /// where `watch` has a predicate they then also recover.
  /// Errors: ETIMEDOUT instead of EAGAIN; EINVAL a negative timeout, or a watch with one function only; EBUSY at once,
  /// unless a watch frees the place.
  Result<void> push_wait(RegionPtr ptr, std::chrono::nanoseconds timeout,
                         const RingWatch& watch = {}) const noexcept;
  Result<RegionPtr> pop_wait(std::chrono::nanoseconds timeout, const RingWatch& watch = {}) const noexcept;
  Result<RingTaken> take_wait(std::chrono::nanoseconds timeout, const RingWatch& watch = {}) const noexcept;

  // ---- recovering and looking -------------------------------------------------------------------------------

  /// Reports and frees what dead participants had taken, and frees their places in an spsc ring. Any number of
  /// participants may do this at the same time, while others use the ring. Looks at every slot of an mpmc ring.
  /// Errors: EINVAL a function is missing; EBADMSG.
  Result<RingRecovery> recover(const RingWatch& watch) const noexcept;

  /// Calls `visit` for the elements in the ring, oldest first, until it returns false. Exact while nobody uses the
  /// ring; else a picture of slightly different moments.
  /// Errors: EINVAL the visitor is missing; EBADMSG.
  Result<void> walk(FunctionRef<bool(const RingEntry& entry)> visit) const noexcept;
  /// Checks the invariants of indices and slots. Requires: nobody uses the ring meanwhile.
  /// Errors: EBADMSG, with the broken invariant as its message.
  Result<void> check() const noexcept;

  /// About how many elements can be taken: exact while nobody uses the ring, else some moment's count.
  [[nodiscard]] std::size_t size_hint() const noexcept;
  [[nodiscard]] std::size_t capacity() const noexcept {
    return memory_ != nullptr ? std::size_t{1} << shift_ : 0;
  }
  [[nodiscard]] RingKind kind() const noexcept { return static_cast<RingKind>(kind_); }
  [[nodiscard]] std::uint32_t participant() const noexcept { return participant_; }
  [[nodiscard]] explicit operator bool() const noexcept { return memory_ != nullptr; }

 private:
  std::byte* memory_ = nullptr;
  std::uint16_t participant_ = 0;
  std::uint8_t kind_ = 0;
  std::uint8_t shift_ = 0;   // log2 of the capacity; this copy is trusted, the one in the memory is not
  std::uint8_t fences_ = 0;  // this process could not register for membarrier: it fences by itself
  std::uint8_t reserved_[3] = {};
};

}  // namespace extmem
