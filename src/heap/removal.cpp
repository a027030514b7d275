// Draining and removing regions.
#include <algorithm>

#include "alloc/heap_guard.hpp"
#include "base/crash_point.hpp"
#include "base/error.hpp"
#include "heap/domain_state.hpp"
#include "os/backing.hpp"
#include "os/futex.hpp"
#include "os/thread.hpp"

namespace extmem::heap {

Result<void> DomainState::remove_region(RegionId id, HolderReport* holders) noexcept {
  EXTMEM_TRY(slot, thread_slot());
  const OrderedGuard guard(core_, slot, directory_->region_lock, Rank::regions);
  if (!guard.held())
    return guard.refused(
        EXTMEM_ERROR(EDEADLK, "regions cannot be removed inside a listener or a walk over regions"));
  EXTMEM_TRY(region, checked_region(id));
  return remove_locked(region, holders);
}

Result<void> DomainState::remove_locked(std::uint32_t region, HolderReport* holders) noexcept {
  if (holders != nullptr) *holders = HolderReport{};
  EXTMEM_TRY(slot, thread_slot());
  alloc::RegionCore& core = core_.region(region);
  alloc::HeapCore& heap = core_.heap(core.heap);
  const std::uint32_t heap_id = core.heap;
  bool was_draining = false;
  const auto give_up = [&](Error why) {
    if (!was_draining) {
      const alloc::HeapGuard guard(core_, slot, heap_id);
      if (guard.held()) (void)core_.set_draining_locked(slot, region, false);
    }
    core.changing = 0;
    return why;
  };
  {
    const alloc::HeapGuard guard(core_, slot, heap_id);
    if (!guard.held())
      return guard.refused(EXTMEM_ERROR(EDEADLK, "a region cannot be removed inside a walk over its heap"));
    was_draining = (core.flags & alloc::kRegionDraining) != 0;
    // From here on the region is ours to finish; should we die, our cleaner finishes or undoes it.
    core.changing = slot | (was_draining ? 0 : alloc::kUndrain);
    base::crash_point("remove.begun");
    if (auto stopped = core_.set_draining_locked(slot, region, true); !stopped) {
      core.changing = 0;
      return stopped.error();
    }
    base::crash_point("remove.draining");
    if (!core_.region_empty_locked(region)) {
      if (holders != nullptr && core_.pause_all(slot, heap)) {
        LeftOut left_out;
        report_holders_locked(region, *holders, left_out);
        core_.resume_all(slot, heap);
      }
      if (!was_draining) (void)core_.set_draining_locked(slot, region, false);
      core.changing = 0;
      return EXTMEM_ERROR(EBUSY, "the region is in use: free what the report names, or drain_region first");
    }
  }
  if (auto alone = check_unmapped_elsewhere(region, holders); !alone) return give_up(alone.error());
  // Draining and empty: it stays so, whoever looks, until it is detached below.
  const bool here =
      bases_[region] != 0;  // else this process has let it go when it was drained, and its listeners know
  if (const int refused = here ? notify(RegionEventKind::removing, region) : 0; refused != 0) {
    return give_up(EXTMEM_SYS_ERROR(refused < 0 ? -refused : refused,
                                    "a listener refused the removal; nothing has changed"));
  }
  {
    const alloc::HeapGuard guard(core_, slot, heap_id);
    if (!guard.held())
      return give_up(
          guard.refused(EXTMEM_ERROR(EDEADLK, "a region cannot be removed inside a walk over its heap")));
    core_.detach_region_locked(region);
  }
  base::crash_point("remove.detached");
  forget_region(region);
  base::crash_point("remove.unmapped");
  release_region(slot, region);
  announce(Here::done);
  return {};
}

Result<void> DomainState::drain_region(RegionId id, std::chrono::nanoseconds timeout,
                                       HolderReport* holders) noexcept {
  if (holders != nullptr) *holders = HolderReport{};
  EXTMEM_TRY(slot, thread_slot());
  EXTMEM_TRY(region, checked_region(id));
  alloc::RegionCore& core = core_.region(region);
  alloc::HeapCore& heap = core_.heap(core.heap);
  const std::uint64_t start = os::monotonic_ns();
  const std::uint64_t limit = timeout.count() < 0 ? 0 : static_cast<std::uint64_t>(timeout.count());
  {
    const alloc::HeapGuard guard(core_, slot, core.heap);
    if (!guard.held())
      return guard.refused(EXTMEM_ERROR(EDEADLK, "a region cannot be drained inside a walk over its heap"));
    EXTMEM_TRY_VOID(checked_region(id));
    EXTMEM_TRY_VOID(core_.set_draining_locked(slot, region, true));
    core.asked = participants_.self();
  }
  announce();
  for (;;) {
    const std::uint32_t seen =
        core.drained.load(std::memory_order_acquire);  // pairs with the release of a free
    {
      const alloc::HeapGuard guard(core_, slot, core.heap);
      if (!guard.held())
        return guard.refused(EXTMEM_ERROR(EDEADLK, "a region cannot be drained inside a walk over its heap"));
      EXTMEM_TRY_VOID(checked_region(id));
      if ((core.flags & alloc::kRegionDraining) == 0) {
        return EXTMEM_ERROR(ECANCELED, "undrain_region ended the drain: the region serves allocations again");
      }
      // Empty, and mapped by nobody else: then remove_region succeeds.
      if (core_.region_empty_locked(region) && check_unmapped_elsewhere(region, nullptr)) return {};
      const std::uint64_t waited = os::monotonic_ns() - start;
      if (waited >= limit) {
        if (holders != nullptr) {
          EXTMEM_TRY_VOID(core_.pause_all(slot, heap));
          LeftOut left_out;
          report_holders_locked(region, *holders, left_out);
          core_.resume_all(slot, heap);
          (void)check_unmapped_elsewhere(region, holders);
        }
        return EXTMEM_ERROR(ETIMEDOUT,
                            "the region is still in use by those whom the report names; it goes on draining");
      }
    }
    // The freeing side changes the word but makes no system call: so sleep in short steps.
    const std::uint64_t left = limit - std::min(limit, os::monotonic_ns() - start);
    const auto step = static_cast<std::int64_t>(std::min<std::uint64_t>(left, 500'000));
    (void)os::futex_wait(core.drained, seen, step, core_.peers().shared);
  }
}

Result<void> DomainState::undrain_region(RegionId id) noexcept {
  EXTMEM_TRY(slot, thread_slot());
  // Not while the region is being removed: between the last look at it and its end it stays empty because it drains.
  const OrderedGuard regions(core_, slot, directory_->region_lock, Rank::regions);
  if (!regions.held())
    return regions.refused(
        EXTMEM_ERROR(EDEADLK, "regions cannot be changed inside a listener or a walk over regions"));
  EXTMEM_TRY(region, checked_region(id));
  const alloc::HeapGuard guard(core_, slot, core_.region(region).heap);
  if (!guard.held())
    return guard.refused(EXTMEM_ERROR(EDEADLK, "a region cannot be changed inside a walk over its heap"));
  EXTMEM_TRY_VOID(checked_region(id));
  EXTMEM_TRY_VOID(core_.set_draining_locked(slot, region, false));
  core_.region(region).asked = 0;
  announce();
  return {};
}

}  // namespace extmem::heap
