// Addresses: pointer -> region -> IOVA, without a lock; and back, under the region lock.
#include "alloc/span_magazines.hpp"
#include "base/error.hpp"
#include "heap/domain_state.hpp"
#include "os/mapping.hpp"
#include "region/iova_table.hpp"

namespace extmem::heap {

RegionLocal* DomainState::region_at(const void* p) noexcept {
  const auto at = reinterpret_cast<std::uintptr_t>(p);
  ThreadMemory& memory = thread_memory;
  if (memory.seen == index_.sequence() && at - memory.region_base < memory.region_length)
    return memory.region;
  for (;;) {
    std::uint64_t sequence = 0;
    const std::uint32_t slot = index_.find(at, sequence);
    if (slot == 0) return nullptr;
    RegionLocal* region = &locals_[slot];
    memory.see(sequence);
    memory.region_base = region->base;
    memory.region_length = region->length;
    memory.region_bits = alloc::make_ptr(slot, 0);
    memory.region_slab_map = region->slab_map;
    memory.region_mapped = region->slab_mapped;
    memory.region_exact = region->exact;
    memory.region_cpu = region->cpu;
    memory.region = region;
    // Orders the reads above before the second look: had the region gone meanwhile, they may be of another one.
    std::atomic_thread_fence(std::memory_order_acquire);
    if (index_.sequence() == sequence) return region;
  }
}

const RegionLocal* DomainState::look_up(const void* p) noexcept {
  const auto at = reinterpret_cast<std::uintptr_t>(p);
  const ThreadMemory& memory = thread_memory;
  std::uint64_t sequence = index_.sequence();
  if (memory.seen != sequence) [[unlikely]]
    return region_at(p);
  // A guess that is right takes no time: what follows does not wait for the address.
  if (at - memory.region_base < memory.region_length) return memory.region;
  const std::uint32_t slot = index_.find(at, sequence);
  return slot == 0 ? nullptr : &locals_[slot];
}

namespace {
Error foreign() noexcept {
  return EXTMEM_ERROR(EFAULT, "foreign pointer: the address is in no region of this domain");
}
}  // namespace

Result<Iova> DomainState::iova_of(const void* p) noexcept {
  const RegionLocal* region = look_up(p);
  if (region == nullptr) [[unlikely]]
    return foreign();
  const std::uint64_t offset = reinterpret_cast<std::uintptr_t>(p) - region->base;
  if (const std::uint32_t* frames = region->iova_frames; frames != nullptr) [[likely]] {
    // Known by the region, so predicted: what is not asked of the page takes no time of who waits for the answer.
    if (region->iova_bad == 0) [[likely]]
      return region::lookup_known_frame(frames, region->iova_base, region->iova_shift, offset);
    return region::lookup_frame(frames, region->iova_base, region->iova_shift, offset);
  }
  return region::lookup(core_.region(region->slot).iova, core_.segment(), offset);
}

Result<std::size_t> DomainState::iova_runs(const void* p, std::size_t n, std::span<IovaRun> runs,
                                           bool* contiguous) noexcept {
  if (n == 0) return EXTMEM_ERROR(EINVAL, "the range is empty: give at least one byte");
  const RegionLocal* region = look_up(p);
  if (region == nullptr) return foreign();
  const std::uint64_t offset = reinterpret_cast<std::uintptr_t>(p) - region->base;
  if (n > region->length - offset)
    return EXTMEM_ERROR(EFAULT, "the range reaches beyond the end of its region");
  const region::IovaTable& table = core_.region(region->slot).iova;
  if (contiguous != nullptr) {
    *contiguous = region::contiguous(table, core_.segment(), offset, n);
    return std::size_t{0};
  }
  return region::scatter_list(table, core_.segment(), offset, n, runs);
}

Result<void> DomainState::walk_iova_runs(RegionId id, FunctionRef<bool(const IovaRun&)> visit) noexcept {
  if (!visit) return EXTMEM_ERROR(EINVAL, "a walk needs a visitor");
  EXTMEM_TRY(slot, thread_slot());
  // So that the region does not go meanwhile. Not held: this thread is in a listener or a walk, which keeps it too.
  const OrderedGuard guard(core_, slot, directory_->region_lock, Rank::regions);
  EXTMEM_TRY(region, checked_region(id));
  (void)region::for_each_run(core_.region(region).iova, core_.segment(), visit);
  return {};
}

Result<void*> DomainState::address_of(Iova iova) noexcept {
  if (iova == kBadIova) return EXTMEM_ERROR(EINVAL, "kBadIova is no device address");
  EXTMEM_TRY(slot, thread_slot());
  // Under the region lock: a region that is being removed takes its tables and its index with it.
  const OrderedGuard guard(core_, slot, directory_->region_lock, Rank::regions);
  if (!guard.held())
    return guard.refused(
        EXTMEM_ERROR(EDEADLK, "device addresses cannot be looked up inside a listener or a walk"));
  for (std::uint32_t i = 1; i <= regions_high(); ++i) {
    const alloc::RegionCore& core = core_.region(i);
    if ((core.flags & alloc::kRegionUsed) == 0) continue;
    const region::IovaTable& table = core.iova;
    if (region::max_run_length(table) == 0 || iova < region::lowest_iova(table) ||
        iova > region::highest_iova(table)) {
      // Not "highest of the region's end": lowest and highest are of known bytes, whatever their order.
      if (region::reverse_words(table) == 0) continue;
    }
    RegionLocal& local = locals_[i];
    std::uint32_t* words = local.reverse.load(std::memory_order_acquire);  // pairs with the release below
    if (const std::uint64_t wanted = region::reverse_words(table); wanted != 0 && words == nullptr) {
      const std::uint64_t bytes = base::align_up(wanted * 4, os::page_size());
      EXTMEM_TRY(memory, os::reserve(bytes));
      if (auto committed = os::commit(memory, bytes); !committed) {
        os::unmap(memory, bytes);
        return committed.error();
      }
      words = reinterpret_cast<std::uint32_t*>(memory);
      auto built = region::build_reverse(table, core_.segment(), std::span(words, wanted));
      if (!built) {
        os::unmap(memory, bytes);
        return built.error();
      }
      local.reverse_words = static_cast<std::uint32_t>(built->size());
      local.reverse_bytes = bytes;
      local.reverse.store(words, std::memory_order_release);
    }
    const std::span<const std::uint32_t> index(words, words == nullptr ? 0 : local.reverse_words);
    const std::uint64_t offset = region::find(table, core_.segment(), index, iova);
    if (offset != region::kNoOffset) return reinterpret_cast<void*>(local.base + offset);
  }
  return EXTMEM_ERROR(ENOENT, "no page of this domain has this device address");
}

Result<RegionId> DomainState::region_of(const void* p) noexcept {
  const RegionLocal* region = look_up(p);
  if (region == nullptr) [[unlikely]]
    return foreign();
  return RegionId{region->slot, region->generation};
}

Result<RegionPtr> DomainState::to_region_ptr(const void* p) noexcept {
  const RegionLocal* region = look_up(p);
  if (region == nullptr) return foreign();
  return RegionPtr{alloc::make_ptr(region->slot, reinterpret_cast<std::uintptr_t>(p) - region->base)};
}

Result<void*> DomainState::from_region_ptr(RegionPtr ptr) noexcept {
  if (shared_ && ptr.slot() != 0 && ptr.slot() <= regions_high() && bases_[ptr.slot()] == 0 &&
      (core_.region(ptr.slot()).flags & alloc::kRegionAttached) != 0) {
    EXTMEM_TRY_VOID(mapped_here(ptr.slot()));
  }
  if (ptr.slot() == 0 || ptr.slot() > core_.geometry().max_regions || bases_[ptr.slot()] == 0 ||
      ptr.offset() >= core_.region(ptr.slot()).length) {
    return EXTMEM_ERROR(EFAULT, "the region pointer names no byte of a region of this domain");
  }
  return address(ptr);
}

}  // namespace extmem::heap
