// Memory of dead participants that a listener does not let go yet: a device may still write into it.
//
// Before a cleaner frees what a dead participant held in a region, its listeners hear `reclaiming`. Where one answers with
// an error, the cleaner sets its own bit in the region's record, and what the dead one held there loses its owner instead
// of being freed. Each later recover() of that process asks again; when nobody has a bit any more, what nobody owns in
// the region is freed. The bits of participants that are gone are anybody's to ask about.
// A region's bits say it for all dead ones: while one is set, nothing of any dead one is freed there.
// Crash-safe without a journal: a bit is set before anything loses its owner, and cleared after all was freed. Whoever dies
// in between leaves a bit, and the next one asks once more.
#include "alloc/heap_guard.hpp"
#include "alloc/held.hpp"
#include "base/crash_point.hpp"
#include "base/error.hpp"
#include "heap/domain_state.hpp"

namespace extmem::heap {

namespace {

Error inside_a_walk() noexcept {
  return EXTMEM_ERROR(EDEADLK, "recovery cannot run inside a listener or a walk");
}
base::Relaxed<std::uint32_t>& word_of(RegionShare& share, std::uint32_t participant) noexcept {
  return share.withheld_by[(participant - 1) / 32];
}
constexpr std::uint32_t bit_of(std::uint32_t participant) noexcept { return 1u << (participant - 1) % 32; }

}  // namespace

bool DomainState::withheld(std::uint32_t region) const noexcept {
  std::uint32_t all = 0;
  for (const auto& word : shares_[region].withheld_by) all |= word;
  return all != 0;
}

/// Whether this process' listeners speak for a participant: it is this one, or it is gone.
bool DomainState::may_ask_for(std::uint32_t participant) noexcept {
  if (participant == participants_.self()) return true;
  const auto life = shared::Participant::life_of(
      participants_.record(participant)
          .state.load(std::memory_order_acquire));  // pairs with its joiner's release
  return life != shared::Life::alive || participants_.dead(participant);
}

/// Requires: the region lock.
bool DomainState::agreed(std::uint32_t region, std::uint32_t dead, std::uint32_t pid) noexcept {
  if (listener_count_ == 0) return true;
  const RegionEvent event{RegionEventKind::reclaiming, make_region_info(region, true), false, dead, pid};
  for (std::uint32_t i = 0; i < listener_count_; ++i) {
    if (listeners_[i].fn(event, listeners_[i].arg) != 0) return false;
  }
  return true;
}

/// Sets this process' bit. Requires: the region lock.
Result<void> DomainState::withhold(std::uint32_t region, std::uint32_t dead, std::uint32_t pid,
                                   std::uint32_t slot) noexcept {
  const alloc::HeapGuard guard(core_, slot, core_.region(region).heap);
  if (!guard.held()) return guard.refused(inside_a_walk());
  directory_->withheld = 1;
  RegionShare& share = shares_[region];
  const bool same = !withheld(region) || (share.withheld_of == dead && share.withheld_pid == pid);
  share.withheld_of = same ? dead : 0;
  share.withheld_pid = same ? pid : 0;
  auto& word = word_of(share, participants_.self());
  word = word | bit_of(participants_.self());
  base::crash_point("withheld.marked");
  return {};
}

/// Asks the listeners about every region in which a dead participant holds what is to be freed. `garbage`: in heaps that keep,
/// too; where a listener does not agree to that these keep it all, as what is withheld there could not be told from what they keep.
Result<void> DomainState::ask_about(std::uint32_t dead, bool& garbage, std::uint32_t slot) noexcept {
  const OrderedGuard guard(core_, slot, directory_->region_lock, Rank::regions);
  if (!guard.held()) return guard.refused(inside_a_walk());
  if (listener_count_ == 0) return {};
  const std::uint32_t pid = participants_.record(dead).pid;
  for (std::uint32_t region = 1; region <= regions_high(); ++region) {
    const alloc::RegionCore& core = core_.region(region);
    const bool keeps = heaps_[core.heap].on_death == static_cast<std::uint32_t>(OnDeath::keep);
    if ((core.flags & alloc::kRegionAttached) == 0 || (keeps && !garbage)) continue;
    bool holds = false;
    {
      const alloc::HeapGuard heap(core_, slot, core.heap);  // repairs it, where a dead thread held it
      if (!heap.held()) return heap.refused(inside_a_walk());
      alloc::for_each_held(core_, region, [&](std::uint16_t holder, std::uint64_t, std::uint64_t) {
        holds = holds || (holder != alloc::kHolderMemzone && holder_participant(holder) == dead);
      });
    }
    if (!holds || agreed(region, dead, pid)) continue;
    if (keeps) {
      garbage = false;
    } else {
      EXTMEM_TRY_VOID(withhold(region, dead, pid, slot));
    }
  }
  return {};
}

/// Frees what nobody owns in a region, if nobody else withholds it. Requires: the region lock; the listeners agreed.
Result<void> DomainState::free_withheld(std::uint32_t region, std::uint32_t slot,
                                        RecoveryReport& report) noexcept {
  const std::uint32_t heap = core_.region(region).heap;
  const alloc::HeapGuard guard(core_, slot, heap);
  if (!guard.held()) return guard.refused(inside_a_walk());
  RegionShare& share = shares_[region];
  std::uint32_t left[8] = {};
  bool others = false;
  for (std::uint32_t i = 1; i <= shared::kMaxParticipants; ++i) {
    if ((word_of(share, i) & bit_of(i)) == 0 || may_ask_for(i)) continue;
    left[(i - 1) / 32] |= bit_of(i);
    others = true;
  }
  if (!others) {
    EXTMEM_TRY(done, core_.reclaim_locked(slot, heap, [&](std::uint16_t holder, std::uint32_t in) {
      const bool orphan = in == region && holder_participant(holder) == kOrphanOwner;
      return orphan ? alloc::Core::kFreeIt : alloc::Core::kLeaveIt;
    }));
    report.freed_objects += done.freed_objects;
    report.freed_bytes += done.freed_bytes;
    base::crash_point("withheld.freed");
  }
  for (std::uint32_t i = 0; i < 8; ++i) share.withheld_by[i] = left[i];
  return {};
}

Result<void> DomainState::ask_again(std::uint32_t slot, RecoveryReport& report) noexcept {
  if (directory_->withheld == 0) return {};
  const OrderedGuard guard(core_, slot, directory_->region_lock, Rank::regions);
  if (!guard.held()) return guard.refused(inside_a_walk());
  bool any = false;
  for (std::uint32_t region = 1; region <= regions_high(); ++region) {
    if ((core_.region(region).flags & alloc::kRegionAttached) == 0 || !withheld(region)) continue;
    RegionShare& share = shares_[region];
    bool ours = false;
    for (std::uint32_t i = 1; i <= shared::kMaxParticipants && !ours; ++i)
      ours = (word_of(share, i) & bit_of(i)) != 0 && may_ask_for(i);
    if (ours && agreed(region, share.withheld_of, share.withheld_pid)) {
      EXTMEM_TRY_VOID(free_withheld(region, slot, report));
    } else if (ours) {
      EXTMEM_TRY_VOID(
          withhold(region, share.withheld_of, share.withheld_pid, slot));  // in a gone one's stead
    }
    any = any || withheld(region);
  }
  if (!any) directory_->withheld = 0;
  return {};
}

}  // namespace extmem::heap
