// Regions and heaps that other processes have added or taken away: noticing, mapping, unmapping.
//
// A process maps a region when it next looks after the region was added (tend), at the address that the adder has it at
// if that is free here, else at another one congruent to it modulo kCongruence: so every alignment holds everywhere.
// What cannot be mapped is left alone: allocations of this process are then served from other regions.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstring>

#include "base/error.hpp"
#include "heap/domain_state.hpp"
#include "os/backing.hpp"
#include "os/mapping.hpp"
#include "os/shared_mapping.hpp"

namespace extmem::heap {

void DomainState::announce() noexcept {
  if (!shared_) return;
  // Release: who sees the new epoch sees what it is about.
  directory_->epoch.fetch_add(1, std::memory_order_release);
  for (std::uint32_t i = 1; i <= shared::kMaxParticipants; ++i) {
    if (i == participants_.self()) continue;
    shared::Participant& other = participants_.record(i);
    if (shared::Participant::life_of(other.state.load(std::memory_order_acquire)) != shared::Life::alive)
      continue;
    other.sequence.fetch_add(2, std::memory_order_release);  // pairs with the acquire of its fast paths
  }
}

void DomainState::tend_slowly() noexcept {
  auto slot = thread_slot();
  if (!slot || core_.slot(*slot).ranks != 0) return;  // inside a callback: later
  if (participants_.noticed()) {
    if (auto recovered = recover(); !recovered) return;
  }
  const OrderedGuard guard(core_, *slot, directory_->region_lock, Rank::regions);
  if (!guard.held()) return;
  sync_locked();
}

void DomainState::sync_locked() noexcept {
  const std::uint64_t epoch = directory_->epoch.load(std::memory_order_acquire);
  for (std::uint32_t id = 0; id < heaps_.high(); ++id) refresh_heap(id);
  for (std::uint32_t region = 1; region <= directory_->regions.high; ++region) {
    const alloc::RegionCore& core = core_.region(region);
    RegionLocal& local = locals_[region];
    const bool there = (core.flags & alloc::kRegionAttached) != 0;
    if (local.generation != core.generation) local.refused = false;
    if (!there) continue;
    if (bases_[region] == 0) {
      if (local.refused && local.generation == core.generation) continue;
      if ((core.flags & alloc::kRegionDraining) != 0) continue;
      local.generation = core.generation;
      local.refused = !map_foreign(region).ok();
    } else if ((core.flags & alloc::kRegionDraining) != 0 && core.asked != 0 &&
               core.asked != participants_.self() && core_.region_empty_locked(region) &&
               local.kind != BackingKind::external && notify(RegionEventKind::removing, region) == 0) {
      // Somebody wants to remove it: nothing is there any more. What the caller mapped is the caller's to unmap.
      forget_region(region);
    }
  }
  index_.touch();
  synced_.store(epoch, std::memory_order_release);
}

void DomainState::publish_local(std::uint32_t region, std::uintptr_t base, const os::Mapping* mapping,
                                BackingKind kind) noexcept {
  const alloc::RegionCore& core = core_.region(region);
  RegionLocal& local = locals_[region];
  if (shared_) refresh_heap(core.heap);
  local.base = base;
  local.length = core.length;
  local.descs = segment_.at<alloc::PageDesc>(core.pages.descs_offset);
  local.page_shift = core.pages.page_shift;
  local.slot = region;
  local.heap = core.heap;
  local.generation = core.generation;
  local.refused = false;
  local.reverse.store(nullptr, std::memory_order_relaxed);
  local.kind = kind;
  local.mapping = mapping != nullptr ? *mapping : os::Mapping{};
  if (shared_)
    mapped(participants_.self(), region) =
        local.mapping.fd >= 0 ? static_cast<std::uint32_t>(local.mapping.fd) + 2 : 1;
  bases_[region] = base;
  index_.insert(base, core.length, region);
}

void DomainState::forget_region(std::uint32_t region) noexcept {
  if (bases_[region] == 0) return;  // this process has never mapped it
  index_.erase(locals_[region].base);
  unmap_region(region);
}

void DomainState::unmap_region(std::uint32_t region) noexcept {
  RegionLocal& local = locals_[region];
  bases_[region] = 0;
  if (std::uint32_t* words = local.reverse.load(std::memory_order_acquire); words != nullptr) {
    os::unmap(words, local.reverse_bytes);
    local.reverse.store(nullptr, std::memory_order_relaxed);
  }
  if (local.kind != BackingKind::external) (void)os::close_backing(local.mapping);
  local.mapping = os::Mapping{};
  if (participants_.self() != 0) mapped(participants_.self(), region) = 0;
}

Result<void> DomainState::map_foreign(std::uint32_t region) noexcept {
  const alloc::RegionCore& core = core_.region(region);
  const RegionShare& share = shares_[region];
  os::SharedFile file;
  file.device = share.device;
  file.inode = share.inode;
  file.bytes = core.length;
  const auto reach = static_cast<Reach>(share.reach.get());
  int fd = -1;
  if (reach == Reach::path) {
    EXTMEM_TRY(opened, os::open_shared_path(share.path, file));
    fd = opened;
  } else if (reach == Reach::holder) {
    for (std::uint32_t i = 1; i <= shared::kMaxParticipants && fd < 0; ++i) {
      const std::uint32_t has = mapped(i, region);
      if (i == participants_.self() || has < 2) continue;
      if (auto opened = os::open_shared_holder(participants_.record(i).pid, static_cast<int>(has - 2), file);
          opened)
        fd = *opened;
    }
    if (fd < 0)
      return EXTMEM_ERROR(ENXIO,
                          "the region is lost: no living process that holds its memory can be reached");
  } else {
    return EXTMEM_ERROR(ENXIO,
                        "the region is memory of another process that cannot be mapped here by itself: "
                        "attach_region gives it a mapping of yours");
  }
  os::SharedMappingRequest request;
  request.fd = fd;
  request.length = core.length;
  request.wanted = core.phase;
  request.os_page_size = share.os_page_size;
  auto base = os::map_shared_at(request);
  if (!base) {
    ::close(fd);
    return base.error();
  }
  os::Mapping mapping;
  mapping.addr = *base;
  mapping.length = core.length;
  mapping.os_page_size = share.os_page_size;
  mapping.kind = static_cast<BackingKind>(share.kind.get());
  mapping.node = core.node;
  mapping.fd = fd;
  publish_local(region, reinterpret_cast<std::uintptr_t>(*base), &mapping, mapping.kind);
  if (const int refused = notify(RegionEventKind::added, region); refused != 0) {
    index_.erase(reinterpret_cast<std::uintptr_t>(*base));
    unmap_region(region);
    return EXTMEM_SYS_ERROR(refused < 0 ? -refused : refused,
                            "a listener of this process refused the region: it is not mapped here");
  }
  return {};
}

Result<void> DomainState::attach_region(RegionId id, void* base) noexcept {
  EXTMEM_TRY(slot, thread_slot());
  const OrderedGuard guard(core_, slot, directory_->region_lock, Rank::regions);
  if (!guard.held())
    return guard.refused(
        EXTMEM_ERROR(EDEADLK, "regions cannot be attached inside a listener or a walk over regions"));
  EXTMEM_TRY(region, checked_region(id));
  const auto at = reinterpret_cast<std::uintptr_t>(base);
  const alloc::RegionCore& core = core_.region(region);
  if (base == nullptr) return EXTMEM_ERROR(EINVAL, "the mapping's address is null");
  if (bases_[region] != 0) return EXTMEM_ERROR(EEXIST, "the region is mapped in this process already");
  if (((at ^ core.phase) & (os::kCongruence - 1)) != 0) {
    return EXTMEM_ERROR(EINVAL,
                        "the mapping must be congruent to the adder's address modulo 1 GiB, or alignments "
                        "would not hold here");
  }
  if (index_.overlapping(at, core.length) != 0)
    return EXTMEM_ERROR(EEXIST, "the memory overlaps a region that is already mapped here");
  publish_local(region, at, nullptr, BackingKind::external);
  if (const int refused = notify(RegionEventKind::added, region); refused != 0) {
    index_.erase(at);
    unmap_region(region);
    return EXTMEM_SYS_ERROR(refused < 0 ? -refused : refused,
                            "a listener refused the region; nothing has changed");
  }
  return {};
}

Result<void> DomainState::check_unmapped_elsewhere(std::uint32_t region, HolderReport* holders) noexcept {
  if (!shared_) return {};
  bool elsewhere = false;
  for (std::uint32_t i = 1; i <= shared::kMaxParticipants; ++i) {
    if (i == participants_.self() || mapped(i, region) == 0 || participants_.dead(i)) continue;
    elsewhere = true;
    if (holders == nullptr) continue;
    if (holders->count == HolderReport::kMax) {
      ++holders->more;
      continue;
    }
    Holder& mapper = holders->holders[holders->count++];
    mapper = Holder{};
    mapper.pid = participants_.record(i).pid;
    mapper.mapping = true;
  }
  if (!elsewhere) return {};
  return EXTMEM_ERROR(
      EBUSY,
      "other processes map the region: drain_region asks them to unmap it, at their next call or poll()");
}

}  // namespace extmem::heap
