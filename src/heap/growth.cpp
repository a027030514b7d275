// Growth: a heap takes memory from a backing by itself, and gives it back.
#include <algorithm>

#include "heap/domain_state.hpp"

namespace extmem::heap {

bool DomainState::grow(HeapLocal& heap, std::uint64_t bytes, std::uint64_t growths_seen, RegionId& added) noexcept {
  added = RegionId{};
  auto slot = thread_slot();
  if (!slot) return false;
  const OrderedGuard guard(core_, *slot, directory_->region_lock, Rank::regions);
  if (!guard.held()) return false;  // inside a listener: the allocation fails instead of hanging
  HeapRecord& record = heaps_[heap.id];
  if (record.growths.load(std::memory_order_relaxed) != growths_seen) return true;  // somebody else was faster
  const GrowthPolicy& policy = heap.growth;
  const std::uint64_t need = base::align_up(bytes, 4096);
  const std::uint64_t room = policy.limit > record.grown_bytes ? policy.limit - record.grown_bytes : 0;
  std::uint64_t length = std::min(std::max(policy.step, need), room);
  if (length < bytes) return false;
  BackingSpec spec = policy.backing;
  spec.length = length;
  // add_backing takes the region lock: this thread has it, so the shared part is called.
  auto region = add_backing_locked(heap, spec, true);
  if (!region) return false;
  added = *region;
  record.grown_bytes.add(core_.region(added.slot).length);
  record.growths.fetch_add(1, std::memory_order_release);
  return true;
}

bool DomainState::take_back_growth(RegionId id) noexcept {
  auto slot = thread_slot();
  if (!slot) return true;
  const OrderedGuard guard(core_, *slot, directory_->region_lock, Rank::regions);
  if (!guard.held()) return true;
  auto region = checked_region(id);
  if (!region) return false;
  // Others may have used it, and freed that again: then it was not in vain, only too late for us.
  const auto removed = remove_locked(*region, nullptr);
  if (!removed) return removed.error().code() != EBUSY;
  return core_.region(*region).served == 0;
}

void DomainState::give_back(HeapLocal& heap) noexcept {
  if (!heap.grows || !heap.growth.give_back) return;
  auto slot = thread_slot();
  if (!slot) return;
  const OrderedGuard guard(core_, *slot, directory_->region_lock, Rank::regions);
  if (!guard.held()) return;
  core_.heap(heap.id).emptied = 0;  // before the look: what empties from now on says so again
  // One empty region is kept, so that a heap at the edge does not map and unmap for ever.
  bool kept = false;
  for (std::uint32_t region = core_.heap(heap.id).first_region; region != 0;) {
    const std::uint32_t next = core_.region(region).next;
    if ((core_.region(region).flags & alloc::kRegionGrown) != 0 && core_.region_empty_locked(region)) {
      if (kept) {
        (void)remove_locked(region, nullptr);
      } else {
        kept = true;
      }
    }
    region = next;
  }
}

}  // namespace extmem::heap
