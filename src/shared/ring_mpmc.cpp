// The ring of many producers and consumers. M1 to M5 are in ring_format.hpp.
#include "base/crash_point.hpp"
#include "base/error.hpp"
#include "shared/ring_format.hpp"

namespace extmem::shared::mpmc {
namespace {

using base::crash_point;

enum State : std::uint64_t { kFree = 0, kFull = 1, kTaken = 2 };
constexpr std::uint64_t kStateMask = 3;
constexpr unsigned kOwnerShift = 2;
constexpr unsigned kLapShift = 16;
constexpr std::uint64_t kOwnerMask = kMaxRingParticipant;
static_assert(kOwnerMask << kOwnerShift == 0xfffc);

constexpr std::uint64_t make_meta(std::uint64_t lap, std::uint64_t owner, State state) noexcept {
  return (lap << kLapShift) | (owner << kOwnerShift) | state;
}
constexpr std::uint64_t state_of(std::uint64_t meta) noexcept { return meta & kStateMask; }
constexpr std::uint32_t owner_of(std::uint64_t meta) noexcept {
  return static_cast<std::uint32_t>((meta >> kOwnerShift) & kOwnerMask);
}
constexpr std::uint64_t lap_of(std::uint64_t meta) noexcept { return meta >> kLapShift; }
/// How many laps the slot is ahead of `ticket`. Laps count modulo 2^48: what matters is small.
std::int64_t laps_ahead(RingView ring, std::uint64_t meta, std::uint64_t ticket) noexcept {
  const std::uint64_t difference = (lap_of(meta) - (ticket >> ring.shift)) << kLapShift;
  return static_cast<std::int64_t>(difference) >> kLapShift;
}
constexpr std::uint64_t next_free(std::uint64_t meta) noexcept {
  return make_meta(lap_of(meta) + 1, 0, kFree);
}

/// Moves a hint up to `to`. Requires: every ticket below `to` was pushed (tail) or taken (head).
void raise(std::atomic<std::uint64_t>& hint, std::uint64_t to) noexcept {
  std::uint64_t seen = hint.load(std::memory_order_relaxed);
  // Release: pairs with the acquire loads of hints; who sees the hint sees the slots that it stands for.
  while (static_cast<std::int64_t>(to - seen) > 0 &&
         !hint.compare_exchange_weak(seen, to, std::memory_order_release, std::memory_order_relaxed)) {
  }
}

enum class Step { done, again, none, broken };

Error broken_slot() noexcept {
  return EXTMEM_ERROR(
      EBADMSG,
      "the ring's memory is damaged: a slot does not fit the indices; something else wrote there. "
      "Stop using it and create() it anew");
}

/// The slot was used for `ticket` already: tells a hint that lags from damage (M2), and moves it on.
Step pass(RingView ring, std::atomic<std::uint64_t>& hint, std::uint64_t ticket, std::uint64_t meta,
          bool head) noexcept {
  const std::int64_t ahead = laps_ahead(ring, meta, ticket);
  const bool plausible =
      ahead == 0 || (ahead == 1 && (state_of(meta) == kFree || (head && state_of(meta) == kFull)));
  if (!plausible && hint.load(std::memory_order_acquire) == ticket) return Step::broken;
  crash_point("ring.mpmc.help");
  raise(hint, ticket + 1);
  return Step::again;
}

/// Tries to push as `ticket`. Requires: every ticket before it was pushed.
Step push_at(RingView ring, std::uint64_t ticket, RegionPtr ptr) noexcept {
  WordPair& slot = ring.pair(ticket);
  // Acquire: pairs with the CAS that settled the slot's last element, so that its reader is through.
  const std::uint64_t meta = slot.first.load(std::memory_order_acquire);
  const std::int64_t ahead = laps_ahead(ring, meta, ticket);
  if (ahead == 0 && state_of(meta) == kFree) {
    const std::uint64_t old =
        slot.second.load(std::memory_order_relaxed);  // stable while the slot is free (M3)
    crash_point("ring.mpmc.push.before");
    // A full fence; as a release it pairs with the acquire in take_at: who takes ptr sees what it points to.
    if (!compare_exchange(slot, meta, old, make_meta(lap_of(meta), ring.participant, kFull), ptr.bits)) {
      return Step::again;
    }
    crash_point("ring.mpmc.push.done");
    return Step::done;
  }
  if (ahead == -1 && (state_of(meta) == kFull || state_of(meta) == kTaken)) return Step::none;
  if (ahead < 0) return Step::broken;
  return pass(ring, ring.header().tail, ticket, meta, false);
}

/// Tries to take `ticket`; `meta` is then what settle() has to replace.
/// Requires: every ticket before it was taken.
Step take_at(RingView ring, std::uint64_t ticket, RegionPtr& ptr, std::uint64_t& mine) noexcept {
  WordPair& slot = ring.pair(ticket);
  // Acquire: pairs with the CAS in push_at.
  std::uint64_t meta = slot.first.load(std::memory_order_acquire);
  const std::int64_t ahead = laps_ahead(ring, meta, ticket);
  if (ahead == 0 && state_of(meta) == kFull) {
    ptr.bits = slot.second.load(std::memory_order_relaxed);  // right if the CAS succeeds (M3)
    mine = make_meta(lap_of(meta), ring.participant, kTaken);
    crash_point("ring.mpmc.take.before");
    // Acquire-release: ordered with the CASes on this word before and after it.
    if (!slot.first.compare_exchange_strong(meta, mine, std::memory_order_acq_rel,
                                            std::memory_order_relaxed)) {
      return Step::again;
    }
    crash_point("ring.mpmc.take.done");
    return Step::done;
  }
  if (ahead == 0 && state_of(meta) == kFree) return Step::none;
  if (ahead == -1 && state_of(meta) == kTaken) return Step::none;  // its next push waits for that taker
  if (ahead < 0) return Step::broken;
  return pass(ring, ring.header().head, ticket, meta, true);
}

/// Ends a taken state. Returns: false where this participant was declared dead meanwhile.
bool settle_slot(RingView ring, std::uint64_t ticket, std::uint64_t mine) noexcept {
  // Sequentially consistent: releases our reads to push_at's acquire, and is the change before notify's look (W1).
  return ring.pair(ticket).first.compare_exchange_strong(mine, next_free(mine), std::memory_order_seq_cst,
                                                         std::memory_order_relaxed);
}

Error declared_dead() noexcept {
  return EXTMEM_ERROR(
      ESTALE,
      "another participant declared this one dead and took its element; make the predicate that is "
      "given to recover() say \"dead\" only of processes that are gone");
}
Error empty() noexcept {
  return EXTMEM_ERROR(EAGAIN, "the ring is empty; try again later, or wait with pop_wait() or take_wait()");
}

/// Walks tickets from the hint on, one step each, until `count` are done.
/// step(ticket, i) does the work; the hint is raised at the end, and each lap so that M2's lag stays below a lap.
template <typename StepAt>
Step run(RingView ring, std::atomic<std::uint64_t>& hint, std::size_t count, std::size_t& done,
         StepAt step) noexcept {
  // Acquire: pairs with the release in raise().
  std::uint64_t first = hint.load(std::memory_order_acquire);
  std::uint64_t ticket = first;
  done = 0;
  Step result = Step::done;
  while (done < count) {
    result = step(ticket, done);
    if (result == Step::none || result == Step::broken) break;
    if (result == Step::done) {
      ++done;
      ++ticket;
      if (ticket - first < ring.capacity()) continue;
    }
    if (ticket != first) raise(hint, ticket);
    first = ticket = hint.load(std::memory_order_acquire);
  }
  if (ticket != first) raise(hint, ticket);
  return result;
}

}  // namespace

void format(RingView ring) noexcept {
  for (std::uint64_t i = 0; i < ring.capacity(); ++i) {
    ring.pair(i).first.store(make_meta(0, 0, kFree), std::memory_order_relaxed);  // published by the magic
    ring.pair(i).second.store(0, std::memory_order_relaxed);
  }
}

Result<std::size_t> push(RingView ring, const RegionPtr* ptrs, std::size_t count) noexcept {
  std::size_t done = 0;
  const Step last =
      run(ring, ring.header().tail, count, done,
          [&](std::uint64_t ticket, std::size_t i) noexcept { return push_at(ring, ticket, ptrs[i]); });
  if (done > 0) {
    crash_point("ring.mpmc.push.raised");
    notify(ring.header().elements);
    return done;
  }
  if (last == Step::broken) return broken_slot();
  return EXTMEM_ERROR(EAGAIN, "the ring is full; try again later, or wait with push_wait()");
}

Result<std::size_t> pop(RingView ring, RegionPtr* out, std::size_t count) noexcept {
  std::size_t done = 0;
  bool stale = false;
  const Step last =
      run(ring, ring.header().head, count, done, [&](std::uint64_t ticket, std::size_t i) noexcept {
        std::uint64_t mine = 0;
        RegionPtr ptr;
        const Step step = take_at(ring, ticket, ptr, mine);
        if (step != Step::done) return step;
        out[i] = ptr;
        crash_point("ring.mpmc.pop.written");
        if (!settle_slot(ring, ticket, mine)) {
          stale = true;
          return Step::none;
        }
        crash_point("ring.mpmc.pop.settled");
        return Step::done;
      });
  if (done > 0) {
    notify(ring.header().room);
    return done;
  }
  if (stale) return declared_dead();
  if (last == Step::broken) return broken_slot();
  return empty();
}

Result<void> push_one(RingView ring, RegionPtr ptr) noexcept {
  const auto pushed = push(ring, &ptr, 1);
  return pushed ? Result<void>{} : pushed.error();
}

Result<RegionPtr> pop_one(RingView ring) noexcept {
  RegionPtr ptr;
  const auto popped = pop(ring, &ptr, 1);
  return popped ? Result<RegionPtr>{ptr} : popped.error();
}

Result<RingTaken> take(RingView ring) noexcept {
  std::size_t done = 0;
  RingTaken taken;
  std::uint64_t mine = 0;
  const Step last = run(ring, ring.header().head, 1, done, [&](std::uint64_t ticket, std::size_t) noexcept {
    taken.ticket = ticket;
    return take_at(ring, ticket, taken.ptr, mine);
  });
  if (done > 0) return taken;
  if (last == Step::broken) return broken_slot();
  return empty();
}

Result<void> settle(RingView ring, const RingTaken& taken) noexcept {
  const std::uint64_t lap = (taken.ticket >> ring.shift) & (~std::uint64_t{0} >> kLapShift);
  const std::uint64_t meta = ring.pair(taken.ticket).first.load(std::memory_order_relaxed);
  if (settle_slot(ring, taken.ticket, make_meta(lap, ring.participant, kTaken))) {
    crash_point("ring.mpmc.settled");
    notify(ring.header().room);
    return {};
  }
  const std::int64_t ahead = laps_ahead(ring, meta, taken.ticket);
  if (ahead > 0 || (ahead == 0 && state_of(meta) == kTaken)) {
    return EXTMEM_ERROR(
        ESTALE,
        "the element is not taken by this participant any more: it was settled before, or another "
        "participant declared this one dead and took it");
  }
  return EXTMEM_ERROR(EINVAL, "the element is not taken; pass what take() gave, once");
}

Result<RingRecovery> recover(RingView ring, const RingWatch& watch) noexcept {
  RingRecovery recovery;
  std::uint64_t ticket = ring.header().head.load(std::memory_order_acquire);
  ticket = ticket >= ring.capacity() ? ticket - ring.capacity() : 0;  // oldest first, as far as head tells
  for (std::uint64_t i = 0; i < ring.capacity(); ++i, ++ticket) {
    WordPair& slot = ring.pair(ticket);
    // Acquire: pairs with the CAS of the dead taker or recoverer.
    std::uint64_t meta = slot.first.load(std::memory_order_acquire);
    // The predicate is asked after the look at the slot: a participant that gets a dead one's number takes in
    // another lap, so that the CAS below fails for it.
    if (state_of(meta) != kTaken || !watch.is_dead(owner_of(meta))) continue;
    const std::uint64_t mine = make_meta(lap_of(meta), ring.participant, kTaken);
    const std::uint32_t dead = owner_of(meta);
    crash_point("ring.mpmc.recover.before");
    // Of several that recover, one wins; acquire-release as in take_at. (A participant may recover its own number.)
    if (!slot.first.compare_exchange_strong(meta, mine, std::memory_order_acq_rel, std::memory_order_relaxed))
      continue;
    crash_point("ring.mpmc.recover.mine");
    const std::uint64_t lap_start = lap_of(meta) << ring.shift;
    watch.on_orphan(RingOrphan{.ptr = RegionPtr{slot.second.load(std::memory_order_relaxed)},
                               .ticket = lap_start + ring.index(ticket),
                               .participant = dead});
    crash_point("ring.mpmc.recover.reported");
    if (!settle_slot(ring, ticket, mine)) return declared_dead();
    ++recovery.orphans;
  }
  if (recovery.orphans > 0) notify(ring.header().room);
  return recovery;
}

Result<void> walk(RingView ring, RingWalker visit) noexcept {
  // Taken slots can lie up to a lap behind head.
  const std::uint64_t head = ring.header().head.load(std::memory_order_acquire);
  const std::uint64_t from = head - ring.capacity();
  for (std::uint64_t i = 0; i < 2 * ring.capacity(); ++i) {
    const std::uint64_t ticket = from + i;
    const WordPair& slot = ring.pair(ticket);
    // Acquire: pairs with push_at.
    const std::uint64_t meta = slot.first.load(std::memory_order_acquire);
    if (state_of(meta) > kTaken) return broken_slot();
    if (laps_ahead(ring, meta, ticket) != 0 || state_of(meta) == kFree) continue;
    const RingEntry entry{.ptr = RegionPtr{slot.second.load(std::memory_order_relaxed)},
                          .ticket = ticket,
                          .participant = owner_of(meta),
                          .taken = state_of(meta) == kTaken};
    if (slot.first.load(std::memory_order_acquire) != meta) continue;  // it changed meanwhile
    if (!visit(entry)) break;
  }
  return {};
}

Result<void> check(RingView ring) noexcept {
  const std::uint64_t tail = ring.header().tail.load(std::memory_order_acquire);
  const std::uint64_t head = ring.header().head.load(std::memory_order_acquire);
  if (static_cast<std::int64_t>(tail + ring.capacity() - head) < 0 ||
      static_cast<std::int64_t>(head + 2 * ring.capacity() - tail) < 0) {
    return EXTMEM_ERROR(EBADMSG,
                        "the ring is damaged: head and tail are further apart than its capacity allows");
  }
  // T is at most a lap beyond the hint; each slot's newest ticket says whether it lies before T.
  std::uint64_t pushed_end = tail;  // T, when all is well
  while (pushed_end - tail < ring.capacity()) {
    const std::uint64_t meta = ring.pair(pushed_end).first.load(std::memory_order_acquire);
    const std::int64_t ahead = laps_ahead(ring, meta, pushed_end);
    if (ahead < 0 || (ahead == 0 && state_of(meta) == kFree)) break;
    ++pushed_end;
  }
  bool seen_full = false;
  for (std::uint64_t i = 0; i < ring.capacity(); ++i) {
    const std::uint64_t ticket = pushed_end - ring.capacity() + i;  // the newest ticket before T in its slot
    const std::uint64_t meta = ring.pair(ticket).first.load(std::memory_order_acquire);
    const std::int64_t ahead = laps_ahead(ring, meta, ticket);
    const bool settled = ahead == 1 && meta == make_meta(lap_of(meta), 0, kFree);
    if (!settled && (ahead != 0 || (state_of(meta) != kFull && state_of(meta) != kTaken)))
      return broken_slot();
    const bool full = !settled && state_of(meta) == kFull;
    if (full && static_cast<std::int64_t>(head - ticket) > 0) {
      return EXTMEM_ERROR(EBADMSG, "the ring is damaged: head has passed an element that nobody took");
    }
    if (full && ring.pair(ticket).second.load(std::memory_order_relaxed) == 0) {
      return EXTMEM_ERROR(EBADMSG, "the ring is damaged: an element is null");
    }
    // Tickets are taken in order, so none behind a full one was.
    if (seen_full && !full) return EXTMEM_ERROR(EBADMSG, "the ring is damaged: an element was left behind");
    seen_full = seen_full || full;
  }
  return {};
}

}  // namespace extmem::shared::mpmc
