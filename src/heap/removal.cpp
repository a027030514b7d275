// Draining and removing regions.
#include <algorithm>

#include "base/error.hpp"
#include "heap/domain_state.hpp"
#include "os/backing.hpp"
#include "os/futex.hpp"
#include "os/thread.hpp"

namespace extmem::heap {

Result<void> DomainState::remove_region(RegionId id, HolderReport* holders) noexcept {
  EXTMEM_TRY(slot, thread_slot());
  const OrderedGuard guard(core_, slot, directory_->region_lock, Rank::regions);
  if (!guard.held()) return EXTMEM_ERROR(EDEADLK, "regions cannot be removed inside a listener or a walk over regions");
  EXTMEM_TRY(region, checked_region(id));
  return remove_locked(region, holders);
}

Result<void> DomainState::remove_locked(std::uint32_t region, HolderReport* holders) noexcept {
  if (holders != nullptr) *holders = HolderReport{};
  EXTMEM_TRY(slot, thread_slot());
  alloc::RegionCore& core = core_.region(region);
  alloc::HeapCore& heap = core_.heap(core.heap);
  bool was_draining = false;
  {
    const shared::LockGuard guard(heap.lock, slot, core_.process_shared());
    if (!guard.held()) return EXTMEM_ERROR(EDEADLK, "a region cannot be removed inside a walk over its heap");
    was_draining = (core.flags & alloc::kRegionDraining) != 0;
    if (!was_draining) core_.set_draining_locked(slot, region, true);
    if (!core_.region_empty_locked(region)) {
      if (holders != nullptr) {
        core_.pause_all(slot, heap);
        report_holders_locked(region, *holders);
        core_.resume_all(slot, heap);
      }
      if (!was_draining) core_.set_draining_locked(slot, region, false);
      return EXTMEM_ERROR(EBUSY, "the region is in use: free what the report names, or drain_region first");
    }
  }
  // Draining and empty: it stays so, whoever looks, until it is detached below.
  if (const int refused = notify(RegionEventKind::removing, region); refused != 0) {
    const shared::LockGuard guard(heap.lock, slot, core_.process_shared());
    if (!was_draining) core_.set_draining_locked(slot, region, false);
    return EXTMEM_SYS_ERROR(refused < 0 ? -refused : refused, "a listener refused the removal; nothing has changed");
  }
  {
    const shared::LockGuard guard(heap.lock, slot, core_.process_shared());
    core_.detach_region_locked(region);
  }
  RegionLocal& local = locals_[region];
  index_.erase(local.base);
  HeapLocal& heap_local = heap_locals_[core.heap];
  if (core.flags & alloc::kRegionGrown) heap_local.grown_bytes -= std::min(heap_local.grown_bytes, core.length.get());
  if (local.kind != BackingKind::external) (void)os::close_backing(local.mapping);
  release_region(slot, region);
  return {};
}

Result<void> DomainState::drain_region(RegionId id, std::chrono::nanoseconds timeout, HolderReport* holders) noexcept {
  if (holders != nullptr) *holders = HolderReport{};
  EXTMEM_TRY(slot, thread_slot());
  EXTMEM_TRY(region, checked_region(id));
  alloc::RegionCore& core = core_.region(region);
  alloc::HeapCore& heap = core_.heap(core.heap);
  const std::uint64_t start = os::monotonic_ns();
  const std::uint64_t limit = timeout.count() < 0 ? 0 : static_cast<std::uint64_t>(timeout.count());
  {
    const shared::LockGuard guard(heap.lock, slot, core_.process_shared());
    if (!guard.held()) return EXTMEM_ERROR(EDEADLK, "a region cannot be drained inside a walk over its heap");
    EXTMEM_TRY_VOID(checked_region(id));
    core_.set_draining_locked(slot, region, true);
  }
  for (;;) {
    const std::uint32_t seen = core.drained.load(std::memory_order_acquire);  // pairs with the release of a free
    {
      const shared::LockGuard guard(heap.lock, slot, core_.process_shared());
      EXTMEM_TRY_VOID(checked_region(id));
      if (core_.region_empty_locked(region)) return {};
      const std::uint64_t waited = os::monotonic_ns() - start;
      if (waited >= limit) {
        if (holders != nullptr) {
          core_.pause_all(slot, heap);
          report_holders_locked(region, *holders);
          core_.resume_all(slot, heap);
        }
        return EXTMEM_ERROR(ETIMEDOUT, "the region is still in use by those whom the report names; it goes on draining");
      }
    }
    // The freeing side changes the word but makes no system call: so sleep in short steps.
    const std::uint64_t left = limit - std::min(limit, os::monotonic_ns() - start);
    const auto step = static_cast<std::int64_t>(std::min<std::uint64_t>(left, 500'000));
    (void)os::futex_wait(core.drained, seen, step, core_.process_shared());
  }
}

Result<void> DomainState::undrain_region(RegionId id) noexcept {
  EXTMEM_TRY(slot, thread_slot());
  // Not while the region is being removed: between the last look at it and its end it stays empty because it drains.
  const OrderedGuard regions(core_, slot, directory_->region_lock, Rank::regions);
  if (!regions.held()) return EXTMEM_ERROR(EDEADLK, "regions cannot be changed inside a listener or a walk over regions");
  EXTMEM_TRY(region, checked_region(id));
  alloc::HeapCore& heap = core_.heap(core_.region(region).heap);
  const shared::LockGuard guard(heap.lock, slot, core_.process_shared());
  if (!guard.held()) return EXTMEM_ERROR(EDEADLK, "a region cannot be changed inside a walk over its heap");
  EXTMEM_TRY_VOID(checked_region(id));
  if (core_.region(region).flags & alloc::kRegionDraining) core_.set_draining_locked(slot, region, false);
  return {};
}

}  // namespace extmem::heap
