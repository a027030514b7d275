// Growth: a heap takes memory from a backing by itself, and gives it back. And where backings are placed.
#include <algorithm>

#include "alloc/chains.hpp"
#include "alloc/heap_guard.hpp"
#include "base/error.hpp"
#include "heap/domain_state.hpp"
#include "os/hugepages.hpp"
#include "os/mapping.hpp"

namespace extmem {

Result<void> Domain::place_backings(std::uint64_t lowest) noexcept {
  if (state_ == nullptr) return EXTMEM_ERROR(EINVAL, "the domain is not open: get one from Domain::create");
  return state_->place_backings(lowest);
}

}  // namespace extmem

namespace extmem::heap {

namespace {
constexpr std::uint64_t kPlaced = 2u << 20;  // place_backings()
constexpr std::uint64_t kHighestPlace = std::uint64_t{1} << 46;

// The window of shared domains' backings. Linux puts nothing here by itself on x86-64: programs, libraries, stacks and the
// kernel's own choices lie above 2^46 or, in the legacy layout, below 44 TiB; low are programs that are not
// position-independent and the first shadow of AddressSanitizer. (ThreadSanitizer wants these addresses for itself: there the
// kernel chooses, as it does where something lies at a place already.)
constexpr std::uint64_t kWindow = std::uint64_t{48} << 40;
constexpr std::uint64_t kWindowBytes = std::uint64_t{8} << 40;

/// By how much the heap has grown. Its list says it, which changes as a whole: a count beside it would be one region off after
/// a death in between, and the limit with it. Requires: the region lock.
std::uint64_t grown_bytes(const alloc::Core& core, std::uint32_t heap) noexcept {
  std::uint64_t sum = 0;
  (void)alloc::for_each_region(core, core.heap(heap), [&](std::uint32_t, const alloc::RegionCore& region) {
    if ((region.flags & alloc::kRegionGrown) != 0) sum += region.length;
  });
  return sum;
}
}  // namespace

Result<void> DomainState::check_growth(const GrowthPolicy& growth) noexcept {
  if (growth.step == 0) return {};
  if (growth.limit == 0) {
    return EXTMEM_ERROR(EINVAL,
                        "a growth policy with limit 0 could never grow: give the most bytes that it may add");
  }
  const BackingSpec& backing = growth.backing;
  if (backing.fallback > Fallback::anonymous || backing.iova_source > IovaSource::physical ||
      backing.kind > BackingKind::dax) {
    return EXTMEM_ERROR(EINVAL, "unknown kind, IOVA source or fallback in the growth policy's backing");
  }
  if (backing.kind == BackingKind::external || backing.kind == BackingKind::file ||
      backing.kind == BackingKind::dax || backing.kind == BackingKind::shm) {
    return EXTMEM_ERROR(EINVAL,
                        "a growth policy needs a backing without a path: anonymous, hugetlb or memfd");
  }
  if (backing.path != nullptr || backing.progress) {
    return EXTMEM_ERROR(EINVAL,
                        "a growth policy's backing has a path or a progress callback: a heap that grows by "
                        "itself uses neither");
  }
  if (backing.os_page_size != 0 && !base::is_power_of_two(backing.os_page_size)) {
    return EXTMEM_ERROR(
        EINVAL,
        "the OS page size in the growth policy's backing must be a power of two (or 0: the kind's own)");
  }
  if (backing.numa_node < kAnyNode) {
    return EXTMEM_ERROR(
        EINVAL, "the NUMA node in the growth policy's backing must be a node's number, or -1 for any");
  }
  if (growth.limit < growth_page(backing)) {
    return EXTMEM_ERROR(EINVAL,
                        "a growth policy whose limit is below one OS page could never grow: raise the limit");
  }
  return {};
}

std::uint64_t DomainState::growth_page(const BackingSpec& backing) noexcept {
  if (backing.os_page_size != 0) return backing.os_page_size;
  const bool hugetlb = backing.kind == BackingKind::hugetlb || backing.kind == BackingKind::memfd_hugetlb;
  const std::uint64_t huge = hugetlb ? os::default_hugepage_size() : 0;
  return huge != 0 ? huge : os::page_size();
}

bool DomainState::grow(HeapLocal& heap, std::uint64_t bytes, std::uint64_t growths_seen, RegionId& added,
                       Error& why) noexcept {
  added = RegionId{};
  auto slot = thread_slot();
  if (!slot) return false;
  const OrderedGuard guard(core_, *slot, directory_->region_lock, Rank::regions);
  if (!guard.held()) return false;  // inside a listener: the allocation fails instead of hanging
  HeapRecord& record = heaps_[heap.id];
  if (record.growths.load(std::memory_order_relaxed) != growths_seen)
    return true;  // somebody else was faster
  const GrowthPolicy& policy = heap.growth;
  // In whole OS pages, as the backing maps them: else rounding up would go beyond the limit.
  const std::uint64_t page = growth_page(policy.backing);
  const std::uint64_t grown = grown_bytes(core_, heap.id);
  const std::uint64_t room = base::align_down(policy.limit > grown ? policy.limit - grown : 0, page);
  const std::uint64_t wanted = std::max(policy.step, bytes);
  const std::uint64_t length = wanted >= room ? room : base::align_up(wanted, page);
  if (length < bytes || length == 0) {
    why = EXTMEM_ERROR(
        ENOMEM,
        "no free memory of the heap fits, and the limit of its growth policy does not allow as much more");
    return false;
  }
  BackingSpec spec = policy.backing;
  spec.length = length;
  // add_backing takes the region lock: this thread has it, so the shared part is called.
  auto region = add_backing_locked(heap, spec, true);
  if (!region) {
    why = EXTMEM_ERROR(ENOMEM,
                       "no free memory of the heap fits, and it could not grow: the backing of its policy "
                       "cannot be mapped or a "
                       "listener refused it; add_backing with the same backing tells why");
    return false;
  }
  added = *region;
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

/// Where other processes map a grown region that is empty: drains it, so that they unmap it when they next look. The last one
/// that does so makes the heap give back once more. Requires: the region lock.
void DomainState::ask_to_unmap(std::uint32_t region) noexcept {
  alloc::RegionCore& core = core_.region(region);
  auto slot = thread_slot();
  if (!shared_ || !slot || core.asked != 0 || check_unmapped_elsewhere(region, nullptr)) return;
  {
    const alloc::HeapGuard guard(core_, *slot, core.heap);
    if (!guard.held() || !core_.region_empty_locked(region)) return;
    if (!core_.set_draining_locked(*slot, region, true)) return;
    core.asked = participants_.self() | alloc::kAskedByHeap;
  }
  announce();
}

void DomainState::give_back(HeapLocal& heap) noexcept {
  if (!heap.grows || !heap.growth.give_back) return;
  auto slot = thread_slot();
  if (!slot) return;
  const OrderedGuard guard(core_, *slot, directory_->region_lock, Rank::regions);
  if (!guard.held()) return;
  core_.heap(heap.id).emptied = 0;  // before the look: what empties from now on says so again
  bool kept = !heap.growth.keep_one;
  for (std::uint32_t region = core_.heap(heap.id).first_region; region != 0;) {
    const std::uint32_t next = core_.region(region).next;
    const alloc::RegionCore& core = core_.region(region);
    if ((core.flags & alloc::kRegionGrown) != 0 && core_.region_empty_locked(region)) {
      if (kept || (core.asked & alloc::kAskedByHeap) != 0) {
        if (!remove_locked(region, nullptr)) {
          ask_to_unmap(region);
          // The others have let go of it, and a listener here has not.
          if ((core.asked & alloc::kAskedByHeap) != 0 && bases_[region] != 0 &&
              check_unmapped_elsewhere(region, nullptr))
            keep_grown(region);
        }
      } else {
        kept = true;
      }
    }
    region = next;
  }
}

Result<void> DomainState::place_backings(std::uint64_t lowest) noexcept {
  if (!base::is_aligned(lowest, kPlaced) || lowest > kHighestPlace)
    return EXTMEM_ERROR(EINVAL, "backings can be placed from a multiple of 2 MiB upwards, at most 2^46");
  lowest_address_ = lowest;
  return {};
}

/// By the addresses at the adder, for those are what others want too.
std::uint64_t DomainState::next_address() noexcept {
  const std::uint64_t lowest = lowest_address_;
  std::uint64_t next = lowest;
  for (std::uint32_t region = 1; lowest != 0 && region <= directory_->regions.high; ++region) {
    const alloc::RegionCore& core = core_.region(region);
    if ((core.flags & alloc::kRegionUsed) == 0 || core.phase < lowest || core.phase > kHighestPlace) continue;
    next = std::max(next, core.phase + core.length);
  }
  return base::align_up(next, kPlaced);
}

/// Places are given out one after the other and round about, so two participants that add at once ask for different ones
/// without a lock; and from a random start, so that two domains of one process seldom want the same.
std::uint64_t DomainState::window_address(std::uint64_t length, std::uint64_t align) noexcept {
  if (!shared_ || length > kWindowBytes / 4 || align > kWindowBytes / 4) return 0;
  const std::uint64_t bytes = base::align_up(length, kPlaced) + (align > kPlaced ? align : 0);
  // Relaxed: numbers only; nothing is published by it. Modulo at each use: what the segment holds is not trusted.
  const std::uint64_t taken = directory_->next_place.atomic().fetch_add(bytes, std::memory_order_relaxed);
  const std::uint64_t offset = base::align_down(taken % kWindowBytes, kPlaced);
  return kWindow + (offset + bytes <= kWindowBytes ? offset : 0);
}

}  // namespace extmem::heap
