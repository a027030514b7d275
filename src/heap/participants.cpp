// What this process does about the other participants of a named domain: listing them, recovering what dead ones left,
// handing objects over to them, and leaving.
//
// Recovery of a dead participant (the cleaner; docs/recovery.md): undo what its threads had in flight -> open the
// directory's locks that they held -> ask the listeners -> heap by heap: repair where they held the lock, empty their
// caches, reclaim or keep what they held -> finish or undo half-added regions -> free their slots, then the record. Every step can be done twice.
#include <algorithm>
#include <cstring>

#include "alloc/heap_guard.hpp"
#include "base/crash_point.hpp"
#include "base/error.hpp"
#include "heap/domain_state.hpp"
#include "os/kernel_text.hpp"
#include "os/record_lock.hpp"
#include "os/thread.hpp"

namespace extmem::heap {

using shared::Life;
using shared::Participant;

namespace {
Error no_such_participant() noexcept {
  return EXTMEM_ERROR(ESRCH, "no living participant has this number: walk_participants lists them");
}

Error private_domain() noexcept {
  return EXTMEM_ERROR(
      ENOTSUP, "the domain is private to this process: participants are of domains that were opened by name");
}
}  // namespace

Result<void> DomainState::walk_participants(FunctionRef<bool(const ParticipantInfo&)> visit) noexcept {
  if (!visit) return EXTMEM_ERROR(EINVAL, "a walk needs a visitor");
  if (!shared_) return private_domain();
  for (std::uint32_t i = 1; i <= shared::kMaxParticipants; ++i) {
    const Participant& record = participants_.record(i);
    if (Participant::life_of(record.state.load(std::memory_order_acquire)) == Life::free) continue;
    ParticipantInfo info;
    info.id = i;
    info.pid = record.pid;
    std::memcpy(info.name, record.name, sizeof info.name);
    info.name[sizeof info.name - 1] = '\0';
    info.self = i == participants_.self();
    info.dead = participants_.dead(i);
    if (!visit(info)) break;
  }
  return {};
}

Result<RecoveryReport> DomainState::recover() noexcept {
  if (!shared_) return private_domain();
  RecoveryReport report;
  const std::uint64_t start = os::monotonic_ns();
  EXTMEM_TRY(slot, thread_slot());
  if (core_.slot(slot).ranks != 0)
    return EXTMEM_ERROR(EDEADLK, "recovery cannot run inside a listener or a walk");
  participants_.forget();
  EXTMEM_TRY_VOID(ask_again(slot, report));
  for (std::uint32_t i = 1; i <= shared::kMaxParticipants; ++i) {
    if (!participants_.elect(i)) continue;
    base::crash_point("clean.elected");
    if (auto cleaned = clean(i, slot, report); !cleaned) {
      participants_.resign(i);  // the next one to look begins anew
      return cleaned.error();
    }
    ++report.participants;
  }
  report.nanoseconds = os::monotonic_ns() - start;
  return report;
}

Result<RecoveryReport> DomainState::recover_and_tell() noexcept {
  EXTMEM_TRY(report, recover());
  if (opening_untold_.exchange(0, std::memory_order_relaxed) == 0) return report;
  report.participants += opening_.participants;
  report.threads += opening_.threads;
  report.unfinished += opening_.unfinished;
  report.regions += opening_.regions;
  report.freed_objects += opening_.freed_objects;
  report.freed_bytes += opening_.freed_bytes;
  report.kept_objects += opening_.kept_objects;
  report.kept_bytes += opening_.kept_bytes;
  report.nanoseconds += opening_.nanoseconds;
  report.withheld_objects += opening_.withheld_objects;
  report.withheld_bytes += opening_.withheld_bytes;
  return report;
}

Result<void> DomainState::clean(std::uint32_t dead, std::uint32_t slot, RecoveryReport& report) noexcept {
  const std::uint32_t slots = slots_high();
  participants_.release_cleanings_of(dead, slots);
  alloc::CoreRoots& roots = core_.roots();
  for (std::uint32_t s = 1; s <= slots; ++s) {
    if (participants_.of_slot(s) != dead) continue;
    ++report.threads;
    if (core_.slot(s).journal.count.load(std::memory_order_relaxed) != 0) ++report.unfinished;
    if (!participants_.heal(s, slot))
      return EXTMEM_ERROR(ETIMEDOUT, "another process that recovers does not go on (stopped?): try again");
    base::crash_point("clean.healed");
    // All that these four guard is journaled, or is finished below.
    for (shared::Lock* lock : {&roots.small_lock, &directory_->region_lock, &directory_->lock}) {
      lock->break_dead(s, core_.peers());
      base::crash_point("clean.unlocked");
    }
  }
  bool garbage = participants_.ended(dead);
  EXTMEM_TRY_VOID(ask_about(dead, garbage, slot));
  EXTMEM_TRY_VOID(clean_heaps(dead, garbage, slot, report));
  base::crash_point("clean.heaps");
  EXTMEM_TRY_VOID(
      clean_regions([&](std::uint32_t s) { return participants_.of_slot(s) == dead; }, slot, report));
  EXTMEM_TRY_VOID(remove_leftovers(dead, slot));
  base::crash_point("clean.regions");
  for (std::uint32_t region = 0; region <= core_.geometry().max_regions; ++region) {
    if (mapped_by(dead, region) != 0) mapped(dead, region) = 0;
  }
  for (std::uint32_t s = 1; s <= slots; ++s) {
    if (participants_.of_slot(s) != dead) continue;
    if (!core_.drop_spare_caches(slot, s))
      return EXTMEM_ERROR(ETIMEDOUT, "a stopped process keeps the metadata's lock: try again");
    core_.slot(s).ranks = 0;
    base::crash_point("clean.slot");
    if (!participants_.free_slot(s, slot))
      return EXTMEM_ERROR(ETIMEDOUT, "another process that recovers does not go on (stopped?): try again");
  }
  base::crash_point("clean.slots");
  // It may have died between a change and its announcement.
  announce();
  participants_.bury(dead);
  return {};
}

/// `garbage`: what it held is freed also where the heap keeps what the dead hold.
Result<void> DomainState::clean_heaps(std::uint32_t dead, bool garbage, std::uint32_t slot,
                                      RecoveryReport& report) noexcept {
  const std::uint32_t slots = slots_high();
  const auto keeps = [&](std::uint32_t id) {
    return !garbage && heaps_[id].on_death == static_cast<std::uint32_t>(OnDeath::keep);
  };
  const bool asked = dead != participants_.self();  // who leaves in good order has ended its DMA itself
  bool orphans = asked && directory_->withheld != 0;
  for (std::uint32_t id = 0; id < heaps_.high(); ++id) orphans |= heaps_[id].used != 0 && keeps(id);
  if (orphans) EXTMEM_TRY_VOID(intern_orphans(dead, slot));
  for (std::uint32_t id = 0; id < heaps_.high(); ++id) {
    if (heaps_[id].used == 0 && core_.heap(id).lock.holder() == 0 && core_.heap(id).first_cache == 0)
      continue;
    const bool keep = keeps(id);
    const alloc::HeapGuard guard(core_, slot, id);  // repairs it, where a dead thread held it
    if (!guard.held())
      return guard.refused(EXTMEM_ERROR(EDEADLK, "recovery cannot run inside a walk over a heap"));
    for (std::uint32_t s = 1; s <= slots; ++s) {
      if (participants_.of_slot(s) != dead) continue;
      if (alloc::ThreadCache* cache = core_.cache_of(s, id); cache != nullptr) {
        EXTMEM_TRY_VOID(core_.drop_dead_cache_locked(slot, *cache));
        base::crash_point("clean.cache");
      }
    }
    auto heir = [&](std::uint16_t holder, std::uint32_t region) -> std::uint16_t {
      if (holder == alloc::kHolderMemzone || holder_participant(holder) != dead) return alloc::Core::kLeaveIt;
      return keep || (asked && withheld(region)) ? orphan_of(holder) : alloc::Core::kFreeIt;
    };
    EXTMEM_TRY(done, core_.reclaim_locked(slot, id, heir));
    report.freed_objects += done.freed_objects;
    report.freed_bytes += done.freed_bytes;
    (keep ? report.kept_objects : report.withheld_objects) += done.given_objects;
    (keep ? report.kept_bytes : report.withheld_bytes) += done.given_bytes;
    base::crash_point("clean.heap");
  }
  return {};
}

/// Makes a holder without an owner for each tag that the dead one has a holder for.
Result<void> DomainState::intern_orphans(std::uint32_t dead, std::uint32_t slot) noexcept {
  const OrderedGuard guard(core_, slot, directory_->lock, Rank::directory);
  if (!guard.held())
    return guard.refused(EXTMEM_ERROR(EDEADLK, "recovery cannot run inside a walk over the directory"));
  for (std::uint32_t h = alloc::kFirstTagHolder; h < directory_->holders.high; ++h) {
    if (holders_[h].participant != dead || holders_[h].tag == 0) continue;
    EXTMEM_TRY_VOID(
        intern_holder_locked(slot, kOrphanOwner, Tag{static_cast<std::uint16_t>(holders_[h].tag.get())}));
  }
  return {};
}

std::uint16_t DomainState::orphan_of(std::uint16_t holder) const noexcept {
  const Tag tag = holder_tag(holder);
  if (tag.index == 0) return alloc::kHolderOrphan;
  for (std::uint32_t link = tags_[tag.index - 1u].holders; link != 0; link = holders_[link - 1].next) {
    if (holders_[link - 1].participant == kOrphanOwner) return static_cast<std::uint16_t>(link - 1);
  }
  return alloc::kHolderOrphan;  // another process has withheld the region just now: then without its tag
}

Result<void> DomainState::clean_regions(FunctionRef<bool(std::uint32_t)> slot_died, std::uint32_t slot,
                                        RecoveryReport& report) noexcept {
  const OrderedGuard guard(core_, slot, directory_->region_lock, Rank::regions);
  if (!guard.held())
    return guard.refused(EXTMEM_ERROR(EDEADLK, "recovery cannot run inside a walk over regions"));
  for (std::uint32_t region = 1; region <= regions_high(); ++region) {
    alloc::RegionCore& core = core_.region(region);
    const std::uint32_t changing = core.changing;
    if (changing == 0 || !slot_died(changing & ~alloc::kUndrain)) continue;
    ++report.regions;
    if ((core.flags & alloc::kRegionAttached) != 0) {
      if (!core_.sound(core)) continue;  // damaged: verify() says more
      // A removal that had not got far, or an add that had just succeeded: the region stays.
      const alloc::HeapGuard heap(core_, slot, core.heap);
      if (!heap.held())
        return heap.refused(EXTMEM_ERROR(EDEADLK, "recovery cannot run inside a walk over a heap"));
      if ((changing & alloc::kUndrain) != 0) EXTMEM_TRY_VOID(core_.set_draining_locked(slot, region, false));
      core.changing = 0;
    } else {
      forget_region(region);
      release_region(slot, region);
    }
    base::crash_point("clean.region");
  }
  return {};
}

Result<void> DomainState::poll() noexcept {
  if (!shared_) return private_domain();
  EXTMEM_TRY_VOID(recover());
  tend_slowly(true);
  return {};
}

Result<void> DomainState::hand_over(const void* p, std::uint32_t to) noexcept {
  if (!shared_) return private_domain();
  if (to == 0 || to > shared::kMaxParticipants ||
      Participant::life_of(participants_.record(to).state.load(std::memory_order_acquire)) != Life::alive ||
      participants_.dead(to)) {
    return no_such_participant();
  }
  EXTMEM_TRY(slot, thread_slot());
  std::uint16_t holder = 0;
  EXTMEM_TRY(object, held_object(nullptr, p, &holder));
  if (holder == alloc::kHolderMemzone)
    return EXTMEM_ERROR(EPERM, "a memzone is nobody's: there is nothing to hand over");
  std::uint16_t heir = alloc::untagged_holder(to);
  if (const Tag tag = holder_tag(holder); tag.index != 0) {
    const OrderedGuard guard(core_, slot, directory_->lock, Rank::directory);
    if (!guard.held())
      return guard.refused(
          EXTMEM_ERROR(EDEADLK, "objects cannot be handed over inside a walk over the directory"));
    EXTMEM_TRY(interned, intern_holder_locked(slot, to, tag));
    heir = interned;
  }
  const auto offset = reinterpret_cast<std::uintptr_t>(object.base) - bases_[object.region.slot];
  const alloc::HeapGuard guard(core_, slot, object.heap_id);
  if (!guard.held())
    return guard.refused(
        EXTMEM_ERROR(EDEADLK, "objects cannot be handed over inside a walk over their heap"));
  // Again, now that the lock orders it with who gives back what that one held, in this heap, as it dies or leaves.
  const std::uint64_t state = participants_.record(to).state.load(std::memory_order_acquire);
  if (!Participant::takes_objects(state)) return no_such_participant();
  const std::uint32_t region = object.region.slot;
  const auto page = static_cast<std::uint32_t>(offset >> core_.region(region).pages.page_shift);
  EXTMEM_TRY_VOID(core_.share_span_locked(slot, region, page));  // should it be a span
  EXTMEM_TRY(changed,
             core_.change_holder_locked(slot, object.heap_id, alloc::make_ptr(region, offset), holder, heir));
  if (!changed) return EXTMEM_ERROR(EALREADY, "the object was freed, or handed over, at the same time");
  return {};
}

// ---- leaving -----------------------------------------------------------------------------------------------

/// As a death, but in good order: the caches are consistent, no lock is held. Requires: no other call is running.
void DomainState::leave() noexcept {
  const std::uint32_t self = participants_.self();
  auto mine = thread_slot();
  if (!mine) return;  // then our cleaner does it
  const std::uint32_t slot = *mine;
  participants_.say_leaving();
  for (std::uint32_t s = 1; s <= slots_high(); ++s) {
    if (participants_.of_slot(s) != self) continue;
    for (std::uint32_t heap = 0; heap < heaps_.high(); ++heap) {
      if (alloc::ThreadCache* cache = core_.cache_of(s, heap); cache != nullptr)
        (void)core_.drop_cache(slot, *cache);
    }
  }
  RecoveryReport report;
  (void)clean_heaps(self, false, slot, report);
  for (std::uint32_t s = 1; s <= slots_high(); ++s) {
    if (participants_.of_slot(s) != self) continue;
    (void)core_.drop_spare_caches(slot, s);
    if (s != slot && !participants_.free_slot(s, slot)) return;  // then our cleaner does it
  }
  base::crash_point("leave.emptied");
  (void)participants_.free_slot(slot, slot);
}

}  // namespace extmem::heap
