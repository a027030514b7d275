// Objects that take their pages along when they move.
//
// The physical pages behind two places change, and nobody is told. So it is done only in memory of which nobody can know
// more than addresses: a region that the heap got by its growth policy comes when it likes, so whoever lets devices have its
// pages must be a listener, and there must be none. A region that the caller added may have been registered with a device by
// its address alone.
#include "heap/domain_state.hpp"

namespace extmem::heap {

namespace {
/// Private anonymous memory that the heap grew by, without IOVAs.
bool movable(const alloc::RegionCore& core, const RegionLocal& local) noexcept {
  return (core.flags & alloc::kRegionGrown) != 0 && local.kind == BackingKind::anonymous &&
         core.iova.form == region::IovaForm::none;
}
}  // namespace

os::Moved DomainState::move_pages(HeapLocal& heap, std::uint32_t slot, std::uint32_t from_region, void* from,
                                  RegionPtr to, std::uint64_t bytes) noexcept {
  if (shared_ || bytes < os::PageMover::kLeast || !movable(core_.region(from_region), locals_[from_region]) ||
      !movable(core_.region(to.slot()), locals_[to.slot()])) {
    return {};
  }
  // A listener that is added meanwhile waits.
  const OrderedGuard guard(core_, slot, directory_->region_lock, Rank::regions);
  if (!guard.held() || listener_count_ != 0) return {};
  const BackingSpec& backing = heap.growth.backing;
  const bool thp = backing.thp || backing.fallback == Fallback::thp;  // would be split
  if (backing.lock || backing.prefault || thp || backing.numa_node != kAnyNode) return {};
  return mover_.move(static_cast<std::byte*>(address(to)), static_cast<std::byte*>(from), bytes);
}

}  // namespace extmem::heap
